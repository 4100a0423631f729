// Python's view of minhash.hpp.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstring>
#include <vector>

#include "minhash.hpp"

namespace nb = nanobind;
using namespace tritwise;

namespace {

// The bytes of a str (its UTF-8) or of bytes; they live as long as the object.
struct Bytes {
    const std::uint8_t* data;
    std::size_t size;
};

Bytes bytes_of(nb::handle text) {
    Py_ssize_t size = 0;
    const char* data = nullptr;
    if (PyUnicode_Check(text.ptr())) {
        data = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
        if (!data) throw nb::python_error();
    } else if (PyBytes_Check(text.ptr())) {
        data = PyBytes_AS_STRING(text.ptr());
        size = PyBytes_GET_SIZE(text.ptr());
    } else {
        throw nb::type_error("a text is str or bytes");
    }
    return {reinterpret_cast<const std::uint8_t*>(data), static_cast<std::size_t>(size)};
}

template <class T>
nb::ndarray<nb::numpy, T> owned(std::vector<T>&& values, std::initializer_list<std::size_t> shape) {
    auto* kept = new std::vector<T>(std::move(values));
    const nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
    return nb::ndarray<nb::numpy, T>(kept->data(), shape, owner);
}

nb::tuple minhash(nb::sequence texts, int permutations, int shingle, std::uint64_t seed) {
    std::vector<nb::object> held;  // another thread may change the sequence meanwhile
    std::vector<Bytes> all;
    for (nb::handle text : texts) {
        held.push_back(nb::borrow(text));
        all.push_back(bytes_of(text));
    }
    MinHash sketcher(permutations, shingle, seed);
    const auto k = static_cast<std::size_t>(permutations);
    std::vector<std::uint64_t> values(all.size() * k);
    std::vector<std::int64_t> tokens(all.size());
    {
        const nb::gil_scoped_release released;
        for (std::size_t i = 0; i < all.size(); ++i)
            tokens[i] = sketcher.sketch(all[i].data, all[i].size, values.data() + i * k);
    }
    return nb::make_tuple(owned(std::move(values), {all.size(), k}), owned(std::move(tokens), {all.size()}));
}

nb::ndarray<nb::numpy, std::uint64_t> shingles(nb::handle text, int shingle, std::uint64_t seed) {
    const Bytes bytes = bytes_of(text);
    MinHash sketcher(1, shingle, seed);
    std::vector<std::uint64_t> hashes;
    {
        const nb::gil_scoped_release released;
        hashes = sketcher.shingles(bytes.data, bytes.size);
    }
    const std::size_t count = hashes.size();
    return owned(std::move(hashes), {count});
}

}  // namespace

void bind_data(nb::module_& m) {
    using namespace nb::literals;
    m.def("minhash", &minhash, "texts"_a, "permutations"_a, "shingle"_a, "seed"_a,
          "Sketches uint64 [texts, permutations] of texts (str or bytes) as sets of token n-grams, and their "
          "numbers of "
          "tokens int64 [texts].");
    m.def("shingles", &shingles, "text"_a, "shingle"_a, "seed"_a,
          "Hashes uint64 of the distinct token n-grams of a text, rising.");
}
