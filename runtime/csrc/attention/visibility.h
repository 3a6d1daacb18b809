// Marks what the shared library shows to its hosts.
#pragma once

#define POLC_EXPORT extern "C" __attribute__((visibility("default")))
