// Python module polc_runtime._rans: the coder of rans.h and the solver of ribbon.h on numpy arrays, with the GIL
// released. polc_runtime/bitstream/rans.py and retrieval.py call it; RansError becomes BitstreamError there.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "rans.h"
#include "ribbon.h"

namespace nb = nanobind;
using namespace nb::literals;
using polc::rans::Decoder;
using polc::rans::Error;
using polc::rans::Tables;

namespace {

using Ints = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Matrix = nb::ndarray<const int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Words = nb::ndarray<const uint64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using MutableInts = nb::ndarray<int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void make_tables(Tables* self, const Matrix& cdf, const Ints& lengths, const Ints& offsets) {
  if (lengths.shape(0) != cdf.shape(0) || offsets.shape(0) != cdf.shape(0))
    throw Error("the table's lengths and offsets do not have one entry for each row");
  new (self) Tables(cdf.data(), cdf.shape(0), cdf.shape(1), lengths.data(), offsets.data());
}

nb::bytes encode(const Tables& tables, const Ints& symbols, const Ints& indexes) {
  if (symbols.shape(0) != indexes.shape(0)) throw Error("there are not as many symbols as indexes");
  std::vector<uint8_t> stream;
  {
    nb::gil_scoped_release release;
    stream = polc::rans::encode(tables, symbols.data(), indexes.data(), symbols.shape(0));
  }
  return nb::bytes(stream.data(), stream.size());
}

void decode(Decoder& decoder, const Ints& indexes, const MutableInts& out) {
  if (indexes.shape(0) != out.shape(0)) throw Error("there are not as many indexes as places for symbols");
  nb::gil_scoped_release release;
  decoder.decode(indexes.data(), indexes.shape(0), out.data());
}

nb::object solve(const Words& starts, const Words& masks, const Bytes& sides, size_t size) {
  const size_t count = starts.shape(0);
  if (masks.shape(0) != count || sides.shape(0) != count) throw Error("there are not as many masks as starts");
  std::vector<uint8_t> solution(size);
  bool solved;
  {
    nb::gil_scoped_release release;
    solved = polc::ribbon::solve(starts.data(), masks.data(), sides.data(), count, size, solution.data());
  }
  return solved ? nb::object(nb::bytes(solution.data(), size)) : nb::none();
}

}  // namespace

NB_MODULE(_rans, m) {
  nb::exception<Error>(m, "RansError");
  nb::class_<Tables>(m, "Tables")
      .def("__init__", &make_tables, "cdf"_a.noconvert(), "lengths"_a.noconvert(), "offsets"_a.noconvert());
  nb::class_<Decoder>(m, "Decoder")
      .def(
          "__init__",
          [](Decoder* self, const Tables& tables, nb::bytes data) {
            new (self) Decoder(tables, static_cast<const uint8_t*>(data.data()), data.size());
          },
          "tables"_a, "data"_a, nb::keep_alive<1, 2>())
      .def("decode", &decode, "indexes"_a.noconvert(), "out"_a.noconvert(),
           "Decode one symbol for each row index into `out`.")
      .def("finish", &Decoder::finish, "Raise RansError unless the stream is wholly and exactly used up.");
  m.def("encode", &encode, "tables"_a, "symbols"_a.noconvert(), "indexes"_a.noconvert(),
        "One stream of `symbols`, each coded with the table row of `indexes`.");
  m.def("solve", &solve, "starts"_a.noconvert(), "masks"_a.noconvert(), "sides"_a.noconvert(), "size"_a,
        "The `size` bytes that satisfy a calibration's equations, ordered by start; None where none do.");
}
