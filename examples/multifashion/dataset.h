// MultiFashion: two Fashion-MNIST items on one picture, to be told apart by two tasks (after Sener
// & Koltun, "Multi-Task Learning as Multi-Objective Optimization", 2018, who shift by 6 and
// downscale by nearest neighbour). The first item lies at rows and columns 0–27 of a 36×36 canvas,
// the second at 8–35; pixelwise maximum; bilinear down to 28×28; divided by 255. Second items come
// by a seeded permutation of the same split, so there are as many pictures as items.
//
// Holds the decoded items only (47 MB) and composes pictures as they are asked for: loading costs
// the unpacking and nothing else. Knows no LibTorch.
//
// Thread: immutable after open(); compose() may be called from any.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/result.h"

namespace detente::multifashion {

inline constexpr int kItemSide = 28;
inline constexpr int kCanvasSide = 36;
inline constexpr int kItemPixels = kItemSide * kItemSide;
inline constexpr int kPicturePixels = kItemPixels;
inline constexpr const char* kDefaultDir = "/usr/share/datasets/fashion-mnist";

// One split of Fashion-MNIST as its two idx.gz files hold it.
struct Items {
    std::vector<std::uint8_t> pixels;  // kItemPixels each
    std::vector<std::uint8_t> labels;  // 0–9
    std::uint32_t count() const { return static_cast<std::uint32_t>(labels.size()); }
};

// Reads DIR/PREFIX-images-idx3-ubyte.gz and DIR/PREFIX-labels-idx1-ubyte.gz. Error: bad_dataset,
// naming the file, what was expected and found, and the package that brings it.
Result<Items> read_items(const std::string& dir, const std::string& prefix);

class Pictures {
  public:
    Pictures(Items items, std::uint64_t pairing_key);
    std::uint32_t count() const { return items_.count(); }
    // Writes the picture's kPicturePixels values in [0, 1]. Requires: index < count().
    void compose(std::uint32_t index, float* picture) const;
    // Class of the item on the left (task 0) or on the right (task 1).
    std::uint8_t label(std::uint32_t index, int task) const {
        return items_.labels[task == 0 ? index : partner_[index]];
    }

  private:
    Items items_;
    std::vector<std::uint32_t> partner_;
};

struct Splits {
    Pictures training;  // 60,000
    Pictures test;      // 10,000
};
// `dir` empty: where Debian's package dataset-fashion-mnist puts it. `seed` pairs the items.
Result<Splits> open_splits(const std::string& dir, std::uint64_t seed);

}  // namespace detente::multifashion
