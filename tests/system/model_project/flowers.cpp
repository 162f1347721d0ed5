#include <detente/model.h>
#include <torch/nn/modules/linear.h>

class Flowers : public detente::Model {
  public:
    explicit Flowers(const detente::ModelOptions& options) {
        const std::int64_t hidden = options.integer("hidden", 16);
        trunk_ = register_module("trunk", torch::nn::Linear(4, hidden));
        add_task("species", torch::nn::Linear(hidden, 3));
        add_task("large", torch::nn::Linear(hidden, 2));
        add_task("red", torch::nn::Linear(hidden, 2));
        const torch::Tensor sizes = torch::rand({200, 4});
        const torch::Tensor species = sizes.argmax(1).remainder(3);
        const torch::Tensor large = sizes.sum(1).gt(2).to(torch::kLong);
        const torch::Tensor red = sizes.select(1, 0).gt(.5).to(torch::kLong);
        set_samples(detente::Split::training, sizes, {species, large, red});
        set_samples(detente::Split::test, sizes, {species, large, red});
    }

    std::vector<torch::Tensor> forward(const detente::Batch& batch) override {
        return heads(torch::relu(trunk_(batch.input())));
    }

  private:
    torch::nn::Linear trunk_{nullptr};
};

DETENTE_MODEL(Flowers)
