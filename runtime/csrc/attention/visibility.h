// Marks what the shared library shows to its hosts.
#pragma once

#if defined(_WIN32)
#define POLC_EXPORT extern "C" __declspec(dllexport)
#else
#define POLC_EXPORT extern "C" __attribute__((visibility("default")))
#endif
