// Models on a device, against one that records: no GPU is needed, and none is touched.
#include <dlfcn.h>

#include <cstring>

#include "tests/torch/recording_device.h"
#include "tests/torch/toy_models.h"

namespace detente {
namespace {

using toy::make;
using toy::RecordingDevice;
using toy::ThreeTasks;

Result<std::unique_ptr<TaskGradientEngine>> on(RecordingDevice& device,
                                               const EngineOptions& options = {}) {
    return TaskGradientEngine::create("Toy", &make_model<ThreeTasks>, options,
                                      device.accelerator());
}

// Whether two reports have the same bits; every row of `b` may be read on the host.
void check_same(const Engine& engine, const GradientReport& a, const GradientReport& b,
                const RecordingDevice& device) {
    CHECK(a.losses == b.losses);
    for (std::uint32_t t = 0; t < engine.description().tasks.size(); ++t) {
        for (std::size_t k = 0; k < engine.description().tensors.size(); ++k) {
            const float* expected = a.gradients->gradient(TaskId{t}, k);
            const float* found = b.gradients->gradient(TaskId{t}, k);
            REQUIRE((expected == nullptr) == (found == nullptr));
            if (found == nullptr) continue;
            // Zeros for what has no gradient of LibTorch's are made by the host itself, which the
            // recording takes for work of the stream that is current.
            if (!engine.description().tensors[k].name.starts_with("gates.")) {
                CHECK(device.readable(found));
            }
            CHECK(std::memcmp(found, expected, engine.tensor(k).size_bytes()) == 0);
        }
    }
}

void load_everywhere(Engine& engine, float value) {
    for (std::size_t k = 0; k < engine.description().tensors.size(); ++k) {
        std::vector<float> values(engine.tensor(k).size());
        for (std::size_t i = 0; i < values.size(); ++i) {
            values[i] = value * static_cast<float>(i % 7 + 1);
        }
        engine.load(k, 0, std::as_bytes(std::span<const float>(values)));
    }
}

TEST_CASE("device: gradients are those of the processor and no stream runs ahead of another") {
    EngineOptions options;
    options.options = {{"dropout", "0.5"}};
    const auto plain = make<ThreeTasks>(options);
    RecordingDevice device;
    const auto engine = on(device, options);
    REQUIRE(engine.has_value());
    CHECK((*engine)->description().versions.ends_with(", on recorded"));
    for (int step = 0; step < 3; ++step) {
        const auto request = toy::request({0b111}, static_cast<std::uint64_t>(step));
        const auto expected = (*plain)->gradients(request);
        const auto found = (*engine)->gradients(request);
        REQUIRE(found.has_value());
        check_same(**plain, *expected, *found, device);
        load_everywhere(**plain, .1F * static_cast<float>(step + 1));
        load_everywhere(**engine, .1F * static_cast<float>(step + 1));
    }
    CHECK(device.races == std::vector<std::string>{});
}

TEST_CASE("device: every task computes in a stream of its own and copies in another") {
    RecordingDevice device;
    const auto engine = on(device);
    REQUIRE(engine.has_value());
    const auto before = device.operators;
    REQUIRE((*engine)->gradients(toy::request({0b101})).has_value());
    // 1: shared, 2: copies, 3 to 5: the tasks'.
    CHECK(device.streams() == 5);
    CHECK(device.operators[2] > 0);
    for (const c10::StreamId stream : {1, 2, 3, 5}) {
        const auto at = before.find(stream);
        CHECK(device.operators[stream] > (at == before.end() ? 0 : at->second));
    }
    // Its losses are computed with the others', which the model gives together; no backward.
    CHECK(device.operators[4] < device.operators[3]);
    CHECK(device.operators[0] == before.at(0));
}

TEST_CASE("device: a task's rows are there when it is told done while the next one computes") {
    RecordingDevice device;
    const auto engine = on(device);
    auto request = toy::request();
    std::vector<std::uint32_t> told;
    std::vector<std::uint64_t> of_next;  // operators of the next task's stream, at each telling
    request.task_done = [&](TaskId task, const TaskGradients& rows) {
        told.push_back(task.value);
        of_next.push_back(device.operators[3 + task.value + 1]);
        for (std::size_t k = 0; k < (*engine)->description().tensors.size(); ++k) {
            const float* row = rows.gradient(task, k);
            if (row != nullptr) CHECK(device.readable(row));
        }
    };
    REQUIRE((*engine)->gradients(request).has_value());
    CHECK(told == std::vector<std::uint32_t>{0, 1, 2});
    // All of the next backward was put in its stream before the host waited for this task's rows.
    CHECK(of_next[0] == device.operators[4]);
    CHECK(of_next[1] == device.operators[5]);
    CHECK(device.races == std::vector<std::string>{});
}

TEST_CASE("device: weights are staged and sent only where they are new") {
    RecordingDevice device;
    const auto engine = on(device);
    const auto plain = make<ThreeTasks>();
    for (std::size_t k = 0; k < (*plain)->description().tensors.size(); ++k) {
        const auto there = (*engine)->tensor(k);
        CHECK(std::equal(there.begin(), there.end(), (*plain)->tensor(k).begin()));
    }
    REQUIRE((*engine)->gradients(toy::request()).has_value());
    const std::uint64_t first = device.operators[1];
    REQUIRE((*engine)->gradients(toy::request()).has_value());
    const std::uint64_t again = device.operators[1] - first;
    const float one = 1;
    (*engine)->load(0, 1, std::as_bytes(std::span(&one, 1)));
    CHECK((*engine)->tensor(0)[1] == 1);
    const std::uint64_t then = device.operators[1];
    const std::uint64_t staged = device.from_pinned[1];
    constexpr std::uint64_t kBatchTensors = 4;  // an input and three targets
    REQUIRE((*engine)->gradients(toy::request()).has_value());
    CHECK(device.from_pinned[1] - staged == kBatchTensors + 1);
    CHECK(device.operators[1] - then == again + 1);  // one copy more
}

TEST_CASE("device: a cancelled step leaves nothing in flight and the next is as ever") {
    RecordingDevice device;
    const auto engine = on(device);
    const auto plain = make<ThreeTasks>();
    std::atomic<bool> cancelled = false;
    auto request = toy::request();
    request.cancelled = &cancelled;
    request.task_done = [&](TaskId, const TaskGradients&) { cancelled = true; };
    const auto stopped = (*engine)->gradients(request);
    REQUIRE_FALSE(stopped.has_value());
    CHECK(stopped.error().code == ErrorCode::cancelled);
    CHECK(device.events_alive() == 0);
    CHECK(device.idle());
    const auto expected = (*plain)->gradients(toy::request());
    const auto found = (*engine)->gradients(toy::request());
    REQUIRE(found.has_value());
    check_same(**plain, *expected, *found, device);
    CHECK(device.races == std::vector<std::string>{});
}

TEST_CASE("device: an engine there leaves scoring to the processor") {
    RecordingDevice device;
    const auto engine = on(device);
    const auto scores = (*engine)->evaluate();
    REQUIRE_FALSE(scores.has_value());
    CHECK(scores.error().code == ErrorCode::not_supported);
    CHECK_THAT(scores.error().text, Catch::Contains("is on recorded"));
}

TEST_CASE("device: weights on the host are not written while they are on their way") {
    RecordingDevice device;
    const DeviceStreams streams(device.accelerator(), 1);
    const DeviceStreams::Scope scope(streams);
    DeviceWeights weights(streams, {torch::zeros({3})});
    const float one = 1;
    const auto value = std::as_bytes(std::span(&one, 1));
    weights.load(0, 0, value);
    CHECK(device.waits == 0);
    weights.send();
    CHECK_FALSE(device.idle());
    weights.load(0, 1, value);
    CHECK(device.waits == 1);
    CHECK(device.idle());
    weights.load(0, 2, value);
    CHECK(device.waits == 1);
}

class Headed : public Model {
  public:
    explicit Headed(const ModelOptions& /*options*/) {
        trunk_ = register_module("trunk", torch::nn::Linear(6, 4));
        gate_ = add_gate("trunk");
        add_task("shape", torch::nn::Linear(4, 3));
        add_task("colour", torch::nn::Linear(4, 2));
        const auto classes = ThreeTasks::classes(20);
        for (const Split split : {Split::training, Split::test}) {
            set_samples(split, ThreeTasks::rows(20), {classes[0], classes[1]});
        }
    }
    std::vector<torch::Tensor> forward(const Batch& batch) override {
        return heads(gate_(torch::tanh(trunk_(batch.input()))));
    }

  private:
    torch::nn::Linear trunk_{nullptr};
    Gate gate_;
};

GradientRequest of_two(bool representation) {
    GradientRequest request = toy::request({0b11});
    for (std::uint32_t& sample : request.samples) sample %= 20;
    request.representation = representation;
    return request;
}

TEST_CASE("device: a trunk's gradient is that of the processor") {
    EngineOptions options;
    options.representation = true;
    options.gates = false;
    const auto plain = make<Headed>(options);
    RecordingDevice device;
    const auto engine =
        TaskGradientEngine::create("Toy", &make_model<Headed>, options, device.accelerator());
    REQUIRE(engine.has_value());
    const auto expected = (*plain)->gradients(of_two(true));
    const auto found = (*engine)->gradients(of_two(true));
    REQUIRE(found.has_value());
    check_same(**plain, *expected, *found, device);
    const auto there = expected->gradients->representation(TaskId{1});
    const auto here = found->gradients->representation(TaskId{1});
    REQUIRE(std::equal(here.begin(), here.end(), there.begin(), there.end()));
    // The weights of then are brought back, as where engines are shared.
    for (Engine* one : {static_cast<Engine*>(plain->get()), static_cast<Engine*>(engine->get())}) {
        const std::vector<float> same((*plain)->tensor(0).begin(), (*plain)->tensor(0).end());
        one->load(0, 0, std::as_bytes(std::span<const float>(same)));
    }
    const auto trunk = (*plain)->trunk_gradient(*expected->gradients, there);
    const auto same = (*engine)->trunk_gradient(*found->gradients, here);
    REQUIRE(same.has_value());
    const std::size_t weight = toy::index_of(**plain, "trunk.weight");
    CHECK(device.readable((*same)->gradient(weight)));
    CHECK(std::memcmp((*same)->gradient(weight), (*trunk)->gradient(weight),
                      6 * 4 * sizeof(float)) == 0);
    CHECK(device.races == std::vector<std::string>{});
}

TEST_CASE("device: gates stay on the host and scale as on the processor") {
    const auto plain = make<Headed>();
    RecordingDevice device;
    const auto engine =
        TaskGradientEngine::create("Toy", &make_model<Headed>, {}, device.accelerator());
    REQUIRE(engine.has_value());
    const std::size_t gate = toy::index_of(**engine, "gates.trunk.shape");
    const float wide_open = 3;
    for (Engine* one : {static_cast<Engine*>(plain->get()), static_cast<Engine*>(engine->get())}) {
        one->load(gate, 0, std::as_bytes(std::span(&wide_open, 1)));
    }
    const auto expected = (*plain)->gradients(of_two(false));
    const auto found = (*engine)->gradients(of_two(false));
    REQUIRE(found.has_value());
    check_same(**plain, *expected, *found, device);
    CHECK(device.races == std::vector<std::string>{});
}

class Kept : public ThreeTasks {
  public:
    using ThreeTasks::ThreeTasks;
    torch::Tensor loss(std::size_t task, const torch::Tensor& output,
                       const torch::Tensor& target) override {
        if (++calls_ > kTriedBefore) throw std::invalid_argument("tensors on two devices");
        return ThreeTasks::loss(task, output, target);
    }

  private:
    static constexpr int kTriedBefore = 18;  // on the processor: three losses six times
    int calls_ = 0;
};

TEST_CASE(
    "device: a model that cannot compute there is told before training with the likely reason") {
    RecordingDevice device;
    const auto engine =
        TaskGradientEngine::create("Toy", &make_model<Kept>, {}, device.accelerator());
    REQUIRE_FALSE(engine.has_value());
    CHECK(engine.error().code == ErrorCode::bad_model);
    CHECK_THAT(engine.error().text, Catch::Contains("tensors on two devices (on recorded;") &&
                                        Catch::Contains("on batch.input().device()"));
}

TEST_CASE("device: the recording finds a stream that does not wait") {
    RecordingDevice device;
    const DeviceStreams streams(device.accelerator(), 2);
    const DeviceStreams::Scope scope(streams);
    const torch::Tensor shared = torch::ones({4}) * 2;
    {
        DeviceStreams::Fork fork(&streams);
        fork.enter(TaskId{0});
        const torch::Tensor mine = shared * 3;
        fork.enter(TaskId{1});
        CHECK(device.races.empty());
        const torch::Tensor stolen = mine + 1;  // the other task's, which nobody waits for
    }
    REQUIRE_FALSE(device.races.empty());
    const std::size_t found = device.races.size();
    CHECK_THAT(device.races.front(),
               Catch::Contains("in stream 4 reads what stream 3 wrote without waiting for it"));
    Arrival arrival = streams.to_host({shared});
    CHECK(arrival.wait().front().equal(torch::full({4}, 2.)));
    CHECK(device.races.size() == found);
}

bool made = false;
class NeverMade : public ThreeTasks {
  public:
    explicit NeverMade(const ModelOptions& options) : ThreeTasks(options) { made = true; }
};

TEST_CASE("device: what is no device is refused with what was expected before the model is made") {
    const auto refusal = [](const std::string& name) {
        EngineOptions options;
        options.device = name;
        const auto engine = make<NeverMade>(options);
        REQUIRE_FALSE(engine.has_value());
        CHECK_FALSE(made);
        CHECK(engine.error().code == ErrorCode::not_supported);
        return engine.error().text;
    };
    CHECK_THAT(refusal("gpu"), Catch::Contains("worker.device = \"gpu\": no device that LibTorch"));
    CHECK_THAT(refusal("cuda"), Catch::Contains("expected \"cuda:\" and a number"));
    if (void* driver = dlopen("libcuda.so.1", RTLD_LAZY)) {
        dlclose(driver);
        WARN("this machine has NVIDIA's driver: the refusal of a missing one is not tried");
        return;
    }
    CHECK_THAT(refusal("cuda:0"), Catch::Contains("looked for NVIDIA's driver, libcuda.so.1") &&
                                      Catch::Contains("set worker.device = \"cpu\""));
}

}  // namespace
}  // namespace detente
