#include "examples/multifashion/dataset.h"

#include <unistd.h>
#include <zlib.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "common/random.h"

namespace detente::multifashion {
namespace {

namespace fs = std::filesystem;

using Bytes = std::vector<std::uint8_t>;

void put(Bytes& bytes, std::uint32_t number) {
    for (int shift = 24; shift >= 0; shift -= 8) {
        bytes.push_back(static_cast<std::uint8_t>(number >> static_cast<unsigned>(shift)));
    }
}

Bytes images(std::uint32_t announced, std::uint32_t given, std::uint32_t rows = 28) {
    Bytes bytes;
    put(bytes, 0x803);
    put(bytes, announced);
    put(bytes, rows);
    put(bytes, 28);
    for (std::uint32_t k = 0; k < given * 784; ++k) {
        bytes.push_back(static_cast<std::uint8_t>(k * 37 % 251));
    }
    return bytes;
}

Bytes labels(std::uint32_t announced, std::uint32_t given, std::uint8_t first = 0) {
    Bytes bytes;
    put(bytes, 0x801);
    put(bytes, announced);
    for (std::uint32_t k = 0; k < given; ++k) {
        bytes.push_back(static_cast<std::uint8_t>(k == 0 ? first : k % 10));
    }
    return bytes;
}

// A folder with a good tiny data set, whose files a test then spoils.
class Folder {
  public:
    Folder() : path_(fs::temp_directory_path() / ("detente_idx_" + std::to_string(::getpid()))) {
        fs::create_directory(path_);
        for (const char* split : {"train", "t10k"}) {
            write(std::string(split) + kImages, images(12, 12));
            write(std::string(split) + kLabels, labels(12, 12));
        }
    }
    ~Folder() { fs::remove_all(path_); }
    void write(const std::string& name, const Bytes& bytes) const {
        const gzFile file = gzopen((path_ / name).c_str(), "wb");
        gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size()));
        gzclose(file);
    }
    fs::path operator/(const std::string& name) const { return path_ / name; }
    // The error's text; empty if the set opens. Every refusal names file and remedy.
    std::string refusal(const std::string& file) const {
        const auto splits = open_splits(path_.string(), 1);
        if (splits) return "";
        CHECK(splits.error().code == ErrorCode::bad_dataset);
        CHECK(splits.error().text.find((path_ / file).string()) == 0);
        CHECK(splits.error().text.find("dataset-fashion-mnist") != std::string::npos);
        return splits.error().text;
    }
    static constexpr const char* kImages = "-images-idx3-ubyte.gz";
    static constexpr const char* kLabels = "-labels-idx1-ubyte.gz";

  private:
    fs::path path_;
};

const std::string kFile = "train-images-idx3-ubyte.gz";
const std::string kClasses = "t10k-labels-idx1-ubyte.gz";

bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

TEST_CASE("dataset: a good folder opens, and each spoilt file is one error that names it") {
    const Folder folder;
    REQUIRE(folder.refusal("").empty());

    SECTION("missing") {
        fs::remove(folder / kFile);
        CHECK(has(folder.refusal(kFile), "no such file"));
    }
    SECTION("cut short") {
        fs::resize_file(folder / kFile, fs::file_size(folder / kFile) / 2);
        const std::string text = folder.refusal(kFile);
        CHECK(has(text, "expected 9408 bytes of pixels, found "));
        CHECK(has(text, "truncated"));
    }
    SECTION("without its last bytes, the checksum") {
        fs::resize_file(folder / kFile, fs::file_size(folder / kFile) - 6);
        const std::string text = folder.refusal(kFile);
        CHECK(has(text, "expected 8 bytes of its checksum at the end"));
        CHECK(has(text, "truncated"));
    }
    SECTION("a byte changed") {
        std::fstream file(folder / kFile, std::ios::in | std::ios::out | std::ios::binary);
        file.seekp(-6, std::ios::end);
        file.put('\x5a');
        file.close();
        CHECK(has(folder.refusal(kFile), "damaged"));
    }
    SECTION("empty") {
        fs::resize_file(folder / kClasses, 0);
        CHECK(has(folder.refusal(kClasses), "expected 4 bytes of the magic number"));
    }
    SECTION("garbage that is no gzip") {
        std::ofstream(folder / kFile) << std::string(5000, 'x');
        CHECK(has(folder.refusal(kFile), "magic number of an image file 2051, found 2021161080"));
    }
    SECTION("labels where images belong") {
        folder.write(kFile, labels(12, 12));
        CHECK(has(folder.refusal(kFile), "expected the magic number of an image file 2051"));
    }
    SECTION("no item") {
        folder.write(kClasses, labels(0, 0));
        CHECK(has(folder.refusal(kClasses), "expected 1 to 10000000 items, found 0"));
    }
    SECTION("a count that lies") {
        folder.write(kFile, images(4'000'000'000U, 12));
        CHECK(has(folder.refusal(kFile), "found 4000000000"));
    }
    SECTION("more than announced") {
        folder.write(kFile, images(12, 13));
        CHECK(has(folder.refusal(kFile), "goes on after the items"));
    }
    SECTION("pictures of another size") {
        folder.write(kFile, images(12, 12, 32));
        CHECK(has(folder.refusal(kFile), "expected rows 28, found 32"));
    }
    SECTION("a label out of range") {
        folder.write(kClasses, labels(12, 12, 17));
        CHECK(has(folder.refusal(kClasses), "found 17 as label 0"));
    }
    SECTION("fewer images than labels") {
        folder.write(kFile, images(11, 11));
        CHECK(has(folder.refusal(kFile), "expected 12 items, as many as labels, found 11"));
    }
}

// The definition, pixel by pixel in double: paste, maximum, bilinear.
double slow_pixel(const Items& items, std::uint32_t left, std::uint32_t right, int row,
                  int column) {
    const auto canvas = [&](int r, int c) {
        double value = 0;
        if (r < 28 && c < 28) value = items.pixels[left * 784 + r * 28 + c];
        if (r >= 8 && c >= 8) {
            value = std::max(value, double(items.pixels[right * 784 + (r - 8) * 28 + c - 8]));
        }
        return value;
    };
    const double y = (row + .5) * 36 / 28 - .5;
    const double x = (column + .5) * 36 / 28 - .5;
    const int r = static_cast<int>(std::floor(y));
    const int c = static_cast<int>(std::floor(x));
    const double down = y - r;
    const double along = x - c;
    return ((1 - down) * ((1 - along) * canvas(r, c) + along * canvas(r, c + 1)) +
            down * ((1 - along) * canvas(r + 1, c) + along * canvas(r + 1, c + 1))) /
           255;
}

TEST_CASE("dataset: a picture is the definition's, and its partner comes by the permutation") {
    const Folder folder;
    const auto items = read_items((folder / "").string(), "train");
    REQUIRE(items.has_value());
    const Pictures pictures(*items, 99);
    const auto partner = permutation(99, 12);
    for (std::uint32_t k = 0; k < pictures.count(); ++k) {
        CHECK(pictures.label(k, 0) == items->labels[k]);
        CHECK(pictures.label(k, 1) == items->labels[partner[k]]);
        std::array<float, kPicturePixels> picture{};
        pictures.compose(k, picture.data());
        double worst = 0;
        for (int row = 0; row < 28; ++row) {
            for (int column = 0; column < 28; ++column) {
                worst = std::max(worst, std::abs(picture[row * 28 + column] -
                                                 slow_pixel(*items, k, partner[k], row, column)));
            }
        }
        CHECK(worst < 1e-6);
    }
}

}  // namespace
}  // namespace detente::multifashion
