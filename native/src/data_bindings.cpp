// Python's view of minhash.hpp, words.hpp and lines.hpp.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <string>
#include <vector>

#include "lines.hpp"
#include "minhash.hpp"
#include "words.hpp"

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

template <class T>
using Array = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

template <class T>
nb::ndarray<nb::numpy, T> array_of(std::vector<T>&& values) {
    const std::size_t count = values.size();
    return owned(std::move(values), {count});
}

nb::tuple words(nb::handle text) {
    const Bytes bytes = bytes_of(text);
    Words found;
    {
        const nb::gil_scoped_release released;
        found = words_of(bytes.data, bytes.size);
    }
    return nb::make_tuple(nb::bytes(found.codes.data(), found.codes.size()), array_of(std::move(found.hashes)),
                          array_of(std::move(found.starts)), array_of(std::move(found.ends)));
}

std::size_t gram_size(int n) {
    if (n < 1) throw nb::value_error("n-grams have at least one word");
    return static_cast<std::size_t>(n);
}

nb::ndarray<nb::numpy, std::uint64_t> word_ngrams(Array<std::uint64_t> hashes, int n) {
    return array_of(ngrams(hashes.data(), hashes.size(), gram_size(n)));
}

nb::tuple lookup(Array<std::uint64_t> hashes, int n, Array<std::uint64_t> table, Array<std::int64_t> rows,
                 Array<std::uint8_t> bitmap, int shift) {
    if (rows.size() != table.size()) throw nb::value_error("a table has a row for each of its hashes");
    if (shift < 1 || shift > 60 || bitmap.size() != std::size_t{1} << (61 - shift))
        throw nb::value_error("a bitmap has a bit for each hash without its lower `shift` bits");
    std::vector<std::int64_t> positions, found;
    {
        const nb::gil_scoped_release released;
        find_ngrams(hashes.data(), hashes.size(), gram_size(n),
                    {table.data(), rows.data(), table.size(), bitmap.data(), shift}, positions, found);
    }
    return nb::make_tuple(array_of(std::move(positions)), array_of(std::move(found)));
}

std::size_t distinct_ngrams(Array<std::uint64_t> hashes, int n) {
    const nb::gil_scoped_release released;
    return distinct(ngrams(hashes.data(), hashes.size(), gram_size(n)));
}

// What `words` gave; it may come from anywhere, so it is checked.
WordSpan span_of(const nb::bytes& codes, const Array<std::uint64_t>& hashes, const Array<std::int64_t>& starts,
                 const Array<std::int64_t>& ends) {
    const std::size_t count = hashes.size();
    if (starts.size() != count || ends.size() != count) throw nb::value_error("a word has a hash, a start and an end");
    for (std::size_t i = 0; i < count; ++i)
        if (starts.data()[i] < 0 || ends.data()[i] <= starts.data()[i] ||
            static_cast<std::size_t>(ends.data()[i]) > codes.size())
            throw nb::value_error("a word does not lie in its text");
    return {static_cast<const std::uint8_t*>(codes.data()), hashes.data(), starts.data(), ends.data(), count};
}

nb::ndarray<nb::numpy, std::int64_t> names_of_ngrams(nb::bytes codes, Array<std::uint64_t> hashes,
                                                     Array<std::int64_t> starts, Array<std::int64_t> ends, int n,
                                                     Array<std::uint64_t> no_names) {
    return array_of(distinct_names(span_of(codes, hashes, starts, ends), gram_size(n),
                                   {no_names.data(), no_names.data() + no_names.size()}));
}

nb::tuple measures_of_words(nb::bytes codes, Array<std::uint64_t> hashes, Array<std::int64_t> starts,
                            Array<std::int64_t> ends, std::int64_t longest) {
    WordMeasures measures = measure_words(span_of(codes, hashes, starts, ends), longest);
    return nb::make_tuple(measures.names, measures.short_names, measures.bytes, measures.long_bytes,
                          array_of(std::move(measures.counts)));
}

nb::tuple lengths_of_lines(nb::handle text) {
    const Bytes bytes = bytes_of(text);
    const LineLengths lengths = line_lengths(bytes.data, bytes.size);
    return nb::make_tuple(lengths.lines, lengths.longest, lengths.characters);
}

std::int64_t letters(nb::handle text) {
    const Bytes bytes = bytes_of(text);
    return ascii_letters(bytes.data, bytes.size);
}

nb::tuple lines_of_code(nb::handle text, nb::sequence comment_starts, std::size_t shortest) {
    const Bytes bytes = bytes_of(text);
    std::vector<std::string> starts;
    for (nb::handle start : comment_starts) {
        const Bytes each = bytes_of(start);
        starts.emplace_back(reinterpret_cast<const char*>(each.data), each.size);
    }
    const CodeLines lines = code_lines(bytes.data, bytes.size, starts, shortest);
    return nb::make_tuple(lines.lines, lines.comments, lines.long_bytes, lines.first_bytes);
}

std::vector<std::int64_t> runs_of_base64(nb::handle text) {
    const Bytes bytes = bytes_of(text);
    return base64_runs(bytes.data, bytes.size);
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
    m.def("words", &words, "text"_a,
          "Words of UTF-8 without other scripts' separators: (codes bytes, hashes uint64 [words], starts int64 [words], "
          "ends int64 [words]).");
    m.def("word_ngrams", &word_ngrams, "hashes"_a, "n"_a, "Hashes uint64 [words - n + 1] of every n words.");
    m.def("find_ngrams", &lookup, "hashes"_a, "n"_a, "table"_a, "rows"_a, "bitmap"_a, "shift"_a,
          "(first words, rows) int64 of every n words that a sorted table has.");
    m.def("distinct_ngrams", &distinct_ngrams, "hashes"_a, "n"_a, "How many different runs of n words there are.");
    m.def("distinct_names", &names_of_ngrams, "codes"_a, "hashes"_a, "starts"_a, "ends"_a, "n"_a,
          "no_names"_a,
          "How many different names every n words hold, int64 [words - n + 1]; a name has two bytes or more, begins "
          "with no digit, and has none of the hashes `no_names`.");
    m.def("word_measures", &measures_of_words, "codes"_a, "hashes"_a, "starts"_a, "ends"_a, "longest"_a,
          "(names, names of one byte, bytes of words, of words longer than `longest`, counts int64 of the different "
          "names by rising hash).");
    m.def("line_lengths", &lengths_of_lines, "text"_a,
          "(lines, longest, sum) of `str.splitlines`, in characters without line ends.");
    m.def("ascii_letters", &letters, "text"_a, "How many bytes are ASCII letters.");
    m.def("code_lines", &lines_of_code, "text"_a, "comment_starts"_a, "shortest"_a,
          "(lines, comments, bytes of lines of `shortest` bytes and more, of the first of equal ones), all stripped, "
          "without empty ones.");
    m.def("base64_runs", &runs_of_base64, "text"_a,
          "Lengths of the runs of base64's characters and line feeds that have 64 bytes or more.");
}
