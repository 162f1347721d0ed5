// The model library of the main job: two tasks, `left` and `right`, on pictures of two items.
#include "examples/multifashion/net.h"
#include "worker/torch/model.h"

namespace detente::multifashion {

class MultiFashion : public Model {
  public:
    explicit MultiFashion(const ModelOptions& options) : splits_(open(options)) {
        trunk_ = register_module("trunk", Trunk());
        if (options.flag("residual", false)) {  // a branch whose gradients pass a learned gate
            branch_ = register_module(
                "branch", torch::nn::Linear(TrunkImpl::kFeatures, TrunkImpl::kFeatures));
            gate_ = add_gate("branch");
        }
        for (const char* task : {"left", "right"}) {
            add_task(task, torch::nn::Linear(TrunkImpl::kFeatures, 10));
        }
    }

    std::vector<torch::Tensor> forward(const Batch& batch) override {
        const torch::Tensor shared = trunk_(batch.input());
        return heads(branch_ ? shared + gate_(torch::relu(branch_(shared))) : shared);
    }

    std::uint64_t samples(Split split) const override { return pictures(split).count(); }

    Batch batch(Split split, std::span<const std::uint32_t> samples) override {
        const Pictures& from = pictures(split);
        return {{pictures_of(from, samples)},
                {labels_of(from, samples, 0), labels_of(from, samples, 1)}};
    }

  private:
    static Splits open(const ModelOptions& options) {
        // The pairing has a seed of its own: the data set stays the same while seeds vary.
        const auto seed = static_cast<std::uint64_t>(options.integer("pairing_seed", 1));
        auto splits = open_splits(options.dataset_dir(), seed);
        if (!splits) throw DatasetError(splits.error().text);
        return std::move(*splits);
    }
    const Pictures& pictures(Split split) const {
        return split == Split::training ? splits_.training : splits_.test;
    }

    Splits splits_;
    Trunk trunk_{nullptr};
    torch::nn::Linear branch_{nullptr};  // option residual
    Gate gate_;
};

}  // namespace detente::multifashion

DETENTE_MODEL(detente::multifashion::MultiFashion)
