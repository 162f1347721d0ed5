#include "examples/multifashion/dataset.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <memory>

#include "common/random.h"

namespace detente::multifashion {

namespace {

constexpr std::uint32_t kImagesMagic = 0x803;
constexpr std::uint32_t kLabelsMagic = 0x801;
constexpr std::uint32_t kMaxItems = 10'000'000;  // a header that lies asks for no more than this
constexpr int kOffset = kCanvasSide - kItemSide;

Error bad_file(const std::string& path, const std::string& text) {
    return fail(ErrorCode::bad_dataset,
                path + ": " + text +
                    "; install the Debian package dataset-fashion-mnist again (apt-get install "
                    "--reinstall dataset-fashion-mnist), or let data.dir name a folder with the "
                    "four idx.gz files of Fashion-MNIST");
}

struct CloseGz {
    void operator()(gzFile_s* file) const { gzclose_r(file); }
};

// Reads exactly as many bytes as asked for, or says how many there were.
class IdxFile {
  public:
    static Result<IdxFile> open(const std::string& path) {
        if (!std::filesystem::exists(path)) return bad_file(path, "no such file");
        IdxFile file;
        file.path_ = path;
        file.file_.reset(gzopen(path.c_str(), "rb"));
        if (!file.file_) return bad_file(path, std::string("cannot be read: ") + strerror(errno));
        gzbuffer(file.file_.get(), 1U << 18U);
        return file;
    }

    Result<void> read(void* to, std::size_t bytes, const char* what) {
        std::size_t done = 0;
        while (done < bytes) {
            const auto chunk =
                static_cast<unsigned>(std::min<std::size_t>(bytes - done, 1U << 30U));
            const int got = gzread(file_.get(), static_cast<char*>(to) + done, chunk);
            if (got <= 0) return short_read(what, bytes, done);
            done += static_cast<std::size_t>(got);
        }
        return {};
    }

    Result<std::uint32_t> number(const char* what) {
        std::array<std::uint8_t, 4> b{};
        if (auto read_all = read(b.data(), b.size(), what); !read_all) return read_all.error();
        return std::uint32_t{b[0]} << 24U | std::uint32_t{b[1]} << 16U | std::uint32_t{b[2]} << 8U |
               b[3];
    }

    // The checksum at the end of a gzip stream is verified only by reading past the last byte.
    Result<void> end() {
        char byte = 0;
        const int got = gzread(file_.get(), &byte, 1);
        int code = Z_OK;
        gzerror(file_.get(), &code);
        if (got == 0 && code != Z_BUF_ERROR) return {};  // Z_BUF_ERROR: cut off before its end
        if (got > 0) return bad_file(path_, "goes on after the items its header announces");
        return short_read("its checksum at the end", 8, 0);
    }

    Error wrong(const std::string& text) const { return bad_file(path_, text); }

  private:
    Error short_read(const char* what, std::size_t bytes, std::size_t done) {
        int code = Z_OK;
        const char* reason = gzerror(file_.get(), &code);
        std::string text = std::string("expected ") + std::to_string(bytes) + " bytes of " + what +
                           ", found " + std::to_string(done);
        if (code == Z_BUF_ERROR) {
            text += " (the file is truncated)";
        } else if (code != Z_OK && code != Z_STREAM_END) {
            text += std::string(" (damaged: ") + reason + ")";
        }
        return bad_file(path_, text);
    }

    std::unique_ptr<gzFile_s, CloseGz> file_;
    std::string path_;
};

Result<void> expect(IdxFile& file, std::uint32_t expected, const char* what) {
    const auto found = file.number(what);
    if (!found) return found.error();
    if (*found == expected) return {};
    return file.wrong("expected " + std::string(what) + " " + std::to_string(expected) +
                      ", found " + std::to_string(*found));
}

Result<std::uint32_t> item_count(IdxFile& file) {
    auto count = file.number("its number of items");
    if (!count) return count.error();
    if (*count > 0 && *count <= kMaxItems) return count;
    return file.wrong("expected 1 to " + std::to_string(kMaxItems) + " items, found " +
                      std::to_string(*count));
}

Result<std::vector<std::uint8_t>> read_images(const std::string& path) {
    auto file = IdxFile::open(path);
    if (!file) return file.error();
    if (auto ok = expect(*file, kImagesMagic, "the magic number of an image file"); !ok) {
        return ok.error();
    }
    const auto count = item_count(*file);
    if (!count) return count.error();
    if (auto ok = expect(*file, kItemSide, "rows"); !ok) return ok.error();
    if (auto ok = expect(*file, kItemSide, "columns"); !ok) return ok.error();
    std::vector<std::uint8_t> pixels(std::size_t{*count} * kItemPixels);
    if (auto ok = file->read(pixels.data(), pixels.size(), "pixels"); !ok) return ok.error();
    if (auto ok = file->end(); !ok) return ok.error();
    return pixels;
}

Result<std::vector<std::uint8_t>> read_labels(const std::string& path) {
    auto file = IdxFile::open(path);
    if (!file) return file.error();
    if (auto ok = expect(*file, kLabelsMagic, "the magic number of a label file"); !ok) {
        return ok.error();
    }
    const auto count = item_count(*file);
    if (!count) return count.error();
    std::vector<std::uint8_t> labels(*count);
    if (auto ok = file->read(labels.data(), labels.size(), "labels"); !ok) return ok.error();
    if (auto ok = file->end(); !ok) return ok.error();
    for (std::size_t k = 0; k < labels.size(); ++k) {
        if (labels[k] <= 9) continue;
        return file->wrong("expected labels 0 to 9, found " + std::to_string(labels[k]) +
                           " as label " + std::to_string(k));
    }
    return labels;
}

// Bilinear downscaling as everybody's resize does it: the centre of output pixel i lies at
// (i + ½)·36/28 − ½ of the canvas.
struct Taps {
    std::array<int, kItemSide> first{};
    std::array<float, kItemSide> second_weight{};
};

constexpr Taps make_taps() {
    Taps taps;
    for (int i = 0; i < kItemSide; ++i) {
        const double at = (i + 0.5) * kCanvasSide / kItemSide - 0.5;
        taps.first[static_cast<std::size_t>(i)] = static_cast<int>(at);
        taps.second_weight[static_cast<std::size_t>(i)] =
            static_cast<float>(at - static_cast<int>(at));
    }
    return taps;
}
constexpr Taps kTaps = make_taps();

}  // namespace

Result<Items> read_items(const std::string& dir, const std::string& prefix) {
    const std::string images = dir + "/" + prefix + "-images-idx3-ubyte.gz";
    const std::string labels = dir + "/" + prefix + "-labels-idx1-ubyte.gz";
    auto classes = read_labels(labels);
    if (!classes) return classes.error();
    auto pixels = read_images(images);
    if (!pixels) return pixels.error();
    if (pixels->size() != classes->size() * kItemPixels) {
        return bad_file(images, "expected " + std::to_string(classes->size()) +
                                    " items, as many as labels, found " +
                                    std::to_string(pixels->size() / kItemPixels));
    }
    return Items{std::move(*pixels), std::move(*classes)};
}

Pictures::Pictures(Items items, std::uint64_t pairing_key)
    : items_(std::move(items)), partner_(permutation(pairing_key, items_.count())) {}

void Pictures::compose(std::uint32_t index, float* picture) const {
    const std::uint8_t* left = items_.pixels.data() + std::size_t{index} * kItemPixels;
    const std::uint8_t* right = items_.pixels.data() + std::size_t{partner_[index]} * kItemPixels;
    constexpr std::size_t kCanvasPixels = std::size_t{kCanvasSide} * kCanvasSide;
    std::array<float, kCanvasPixels> canvas{};
    for (int row = 0; row < kItemSide; ++row) {
        float* to = canvas.data() + std::ptrdiff_t{row} * kCanvasSide;
        for (int column = 0; column < kItemSide; ++column) {
            to[column] = left[row * kItemSide + column];
        }
    }
    for (int row = 0; row < kItemSide; ++row) {
        float* to = canvas.data() + std::ptrdiff_t{row + kOffset} * kCanvasSide + kOffset;
        for (int column = 0; column < kItemSide; ++column) {
            to[column] = std::max(to[column], static_cast<float>(right[row * kItemSide + column]));
        }
    }
    for (std::size_t row = 0; row < kItemSide; ++row) {
        const float* above = canvas.data() + std::ptrdiff_t{kTaps.first[row]} * kCanvasSide;
        const float* below = above + kCanvasSide;
        const float down = kTaps.second_weight[row];
        std::array<float, kCanvasSide> line;
        for (std::size_t k = 0; k < kCanvasSide; ++k) {
            line[k] = above[k] + down * (below[k] - above[k]);
        }
        for (std::size_t column = 0; column < kItemSide; ++column) {
            const auto k = static_cast<std::size_t>(kTaps.first[column]);
            *picture++ = (line[k] + kTaps.second_weight[column] * (line[k + 1] - line[k])) / 255;
        }
    }
}

Result<Splits> open_splits(const std::string& dir, std::uint64_t seed) {
    const std::string from = dir.empty() ? kDefaultDir : dir;
    auto training = read_items(from, "train");
    if (!training) return training.error();
    auto test = read_items(from, "t10k");
    if (!test) return test.error();
    return Splits{Pictures(std::move(*training), random_key(seed, Purpose::pairing, {0})),
                  Pictures(std::move(*test), random_key(seed, Purpose::pairing, {1}))};
}

}  // namespace detente::multifashion
