// What workers keep as vectors from step to step, in checkpoints of runs on virtual time.
#include <filesystem>
#include <fstream>

#include "common/file.h"
#include "common/safetensors.h"
#include "ps/checkpoint.h"
#include "tests/launch/simulated_run.h"

namespace detente::test {
namespace {

namespace fs = std::filesystem;

using Tensors = std::map<std::string, std::string>;

Tensors tensors_of(const std::string& path) {
    const auto file = SafetensorsFile::open(path);
    REQUIRE(file.has_value());
    Tensors tensors;
    for (const SafetensorsFile::Tensor& tensor : file->tensors()) {
        const auto bytes = file->read(tensor);
        REQUIRE(bytes.has_value());
        tensors[tensor.entry.name] =
            std::string(reinterpret_cast<const char*>(bytes->bytes.data()), bytes->bytes.size());
    }
    return tensors;
}

// Runs of one job in a folder, each going on from another or none.
class Runs {
  public:
    explicit Runs(std::string text, bool gated = false) : text_(std::move(text)), gated_(gated) {}

    Error run(const std::string& name, const std::vector<std::string>& overrides,
              const std::string& from = "") {
        said.clear();
        SimulationSetup setup = setup_for(job_of(text_, overrides), folder_ / name);
        if (!from.empty()) setup.resume = folder_ / from;
        setup.said = [this](NodeId, Time, LogLevel level, const std::string& text) {
            if (level >= LogLevel::warning) said += text + "\n";
        };
        auto simulation = Simulation::create(std::move(setup));
        if (simulation.has_error()) return simulation.error();
        const Outcome outcome = (*simulation)->run([] { return std::nullopt; });
        restarts = (*simulation)->restarts();
        resumed_from = (*simulation)->view().resumed_from;
        return outcome.failed ? outcome.error : Error{};
    }
    void require_run(const std::string& name, const std::vector<std::string>& overrides,
                     const std::string& from = "") {
        const Error error = run(name, overrides, from);
        INFO(name << ": " << error.text);
        REQUIRE(error.text.empty());
    }
    std::string file(const std::string& path) const { return folder_ / path; }
    Tensors weights(const std::string& checkpoint) const {
        return tensors_of(folder_ / (checkpoint + "/model.safetensors"));
    }

    std::string said;  // warnings of the last run
    SimulatedRestarts restarts;
    std::string resumed_from;

  private:
    SimulationSetup setup_for(const Job& job, const std::string& directory) const {
        if (!gated_) return setup_of(job, directory);
        QuadraticOptions options;
        options.gated = true;
        return setup_of(job, quadratics(options), directory);
    }

    std::string text_;
    bool gated_;
    TemporaryFolder folder_;
};

// Takes a file out of a checkpoint and its manifest, as if its worker had kept nothing.
void take_out(const std::string& checkpoint, const std::string& name) {
    auto manifest = read_manifest(checkpoint);
    REQUIRE(manifest.has_value());
    std::erase_if(manifest->files, [&](const CheckpointFile& file) { return file.name == name; });
    std::ofstream(checkpoint + "/manifest.json") << to_json(*manifest);
    fs::remove(checkpoint + "/" + name);
}

TEST_CASE("resume: averages and squares per task go on as if there had been no end") {
    for (const char* method : {"moco", "db_mtl", "excess_mtl"}) {
        INFO(method);
        Runs runs(kQuadraticJob);
        const std::string named = std::string("conflict.method=") + method;
        runs.require_run("whole", {named, "workers=1", "data.epochs=2"});
        runs.require_run("first", {named, "workers=1"});
        const Tensors kept = tensors_of(runs.file("first/checkpoints/1/worker-0.safetensors"));
        CHECK(kept.size() == 4 * 2);  // tensors, tasks
        runs.require_run("rest", {named, "workers=1", "data.epochs=2"}, "first");
        CHECK(runs.said.empty());
        CHECK(runs.weights("rest/checkpoints/2") == runs.weights("whole/checkpoints/1"));
        CHECK(tensors_of(runs.file("rest/checkpoints/2/worker-0.safetensors")) ==
              tensors_of(runs.file("whole/checkpoints/1/worker-0.safetensors")));
        // Without its vectors the run goes another way, and says so.
        take_out(runs.file("first/checkpoints/1"), "worker-0.safetensors");
        runs.require_run("anew", {named, "workers=1", "data.epochs=2"}, "first");
        CHECK_THAT(runs.said, Catch::Contains("has no worker-0.safetensors"));
        CHECK(runs.weights("anew/checkpoints/2") != runs.weights("whole/checkpoints/1"));
    }
}

TEST_CASE("resume: gates go on from the gradients of the last step before") {
    Runs runs(kQuadraticJob, true);
    const std::vector<std::string> twice = {"workers=1", "conflict.method=sum", "data.epochs=2"};
    runs.require_run("whole", twice);
    runs.require_run("first", {"workers=1", "conflict.method=sum"});
    CHECK(tensors_of(runs.file("first/checkpoints/1/worker-0.safetensors")).size() == 2);
    runs.require_run("rest", twice, "first");
    CHECK(runs.weights("rest/checkpoints/2") == runs.weights("whole/checkpoints/1"));
    take_out(runs.file("first/checkpoints/1"), "worker-0.safetensors");
    runs.require_run("anew", twice, "first");
    CHECK(runs.weights("anew/checkpoints/2") != runs.weights("whole/checkpoints/1"));
}

TEST_CASE("resume: what a staleness policy keeps in the worker goes on as if there was no end") {
    const std::vector<std::vector<std::string>> policies = {
        {"staleness.policy=easgd", "staleness.tau=3"},  // an end between two exchanges
        {"staleness.policy=dana_slim"}};
    for (const std::vector<std::string>& policy : policies) {
        INFO(policy.front());
        Runs runs(kQuadraticJob);
        std::vector<std::string> once = policy;
        once.insert(once.end(), {"workers=1", "rule.learning_rate=0.01"});
        std::vector<std::string> twice = once;
        twice.emplace_back("data.epochs=2");
        runs.require_run("whole", twice);
        runs.require_run("first", once);
        const std::string file = "checkpoints/1/worker-0.safetensors";
        CHECK(tensors_of(runs.file("first/" + file)).size() == 4 + 1);  // tensors; gradients
        runs.require_run("rest", twice, "first");
        CHECK(runs.said.empty());
        CHECK(runs.weights("rest/checkpoints/2") == runs.weights("whole/checkpoints/1"));
        CHECK(tensors_of(runs.file("rest/checkpoints/2/worker-0.safetensors")) ==
              tensors_of(runs.file("whole/" + file)));
        // Without its vectors the run goes another way, and says so.
        take_out(runs.file("first/checkpoints/1"), "worker-0.safetensors");
        runs.require_run("anew", twice, "first");
        CHECK_THAT(runs.said, Catch::Contains("has no worker-0.safetensors"));
        CHECK(runs.weights("anew/checkpoints/2") != runs.weights("whole/checkpoints/1"));
    }
}

TEST_CASE("resume: with more workers or another policy those without vectors of it begin anew") {
    Runs runs(kQuadraticJob);
    runs.require_run("first", {"staleness.policy=dana_slim"});
    const std::vector<std::string> twice = {"staleness.policy=dana_slim", "data.epochs=2"};
    const auto with = [&](const std::string& more) {
        std::vector<std::string> overrides = twice;
        overrides.push_back(more);
        return overrides;
    };
    runs.require_run("more", with("workers=4"), "first");
    CHECK_THAT(runs.said, Catch::Contains("has no worker-3.safetensors") &&
                              !Catch::Contains("worker-2.safetensors"));
    runs.require_run("fewer", with("workers=2"), "first");
    CHECK(runs.said.empty());
    runs.require_run("other", with("staleness.policy=easgd"), "first");
    CHECK_THAT(runs.said, Catch::Contains("the vectors of staleness policy 'dana_slim', the job "
                                          "has 'easgd', which begins anew"));
    runs.require_run("none", with("staleness.policy=async"), "first");
    CHECK_THAT(runs.said, !Catch::Contains("vectors"));
}

TEST_CASE("resume: a worker's file that is missing or altered is one error that names it") {
    Runs runs(kQuadraticJob);
    runs.require_run("first", {"conflict.method=moco"});
    const std::string file = runs.file("first/checkpoints/1/worker-1.safetensors");
    const std::string bytes = bytes_of_file(file);
    std::string altered = bytes;
    altered[altered.size() - 3] = static_cast<char>(altered[altered.size() - 3] ^ 4);
    write_file(file, altered);
    for (const char* what : {"altered", "missing"}) {
        INFO(what);
        const Error error = runs.run(what, {"conflict.method=moco", "data.epochs=2"}, "first");
        CHECK(error.code == ErrorCode::bad_checkpoint);
        CHECK_THAT(error.text, Catch::Contains("worker-1.safetensors"));
        CHECK_THAT(error.text, Catch::Contains("use another checkpoint"));
        fs::remove(file);
    }
    write_file(file, bytes);
    runs.require_run("whole", {"conflict.method=moco", "data.epochs=2"}, "first");
}

TEST_CASE("resume: with more workers the new ones begin anew and with another method all do") {
    Runs runs(kQuadraticJob);
    runs.require_run("first", {"conflict.method=moco"});
    runs.require_run("more", {"conflict.method=moco", "data.epochs=2", "workers=4"}, "first");
    CHECK_THAT(runs.said, Catch::Contains("has no worker-3.safetensors"));
    CHECK_THAT(runs.said, !Catch::Contains("worker-2.safetensors"));
    runs.require_run("fewer", {"conflict.method=moco", "data.epochs=2", "workers=2"}, "first");
    CHECK(runs.said.empty());
    runs.require_run("other", {"conflict.method=db_mtl", "data.epochs=2"}, "first");
    CHECK_THAT(runs.said, Catch::Contains("the vectors of conflict.method 'moco', the job has "
                                          "'db_mtl', which begins anew"));
    runs.require_run("none", {"conflict.method=sum", "data.epochs=2"}, "first");
    CHECK_THAT(runs.said, !Catch::Contains("vectors"));  // moco's weights are told of
    CHECK_FALSE(fs::exists(runs.file("none/checkpoints/2/worker-0.safetensors")));
}

TEST_CASE("restart: workers' vectors are in checkpoints made while training goes on") {
    for (const char* policy : {"async", "bsp", "ssp"}) {
        INFO(policy);
        Runs runs(kQuadraticJob +
                  "\n[checkpoint]\nevery = 320\n[deadlines]\nheartbeat_s = 0.02\n[simulate]\n"
                  "thorough = true\n[[simulate.fault]]\nkind = \"restart\"\nnode = \"server:1\"\n"
                  "at_s = 0.7\nlasts_s = 0.01\n");
        runs.require_run("run",
                         {"conflict.method=moco", std::string("staleness.policy=") + policy});
        CHECK(runs.restarts.done == 1);
        for (const char* worker : {"0", "1", "2"}) {
            const std::string name = std::string("worker-") + worker + ".safetensors";
            CHECK(fs::exists(runs.resumed_from + "/" + name));
        }
    }
}

TEST_CASE("resume: a worker that left before the last checkpoint has its last word in it") {
    Runs runs(kQuadraticJob +
              "\n[[simulate.fault]]\nkind = \"crash\"\nnode = \"worker:1\"\n"
              "at_s = 0.2\n");
    runs.require_run("run", {"conflict.method=db_mtl"});
    CHECK(fs::exists(runs.file("run/checkpoints/1/worker-0.safetensors")));
    CHECK_FALSE(fs::exists(runs.file("run/checkpoints/1/worker-1.safetensors")));
    CHECK(fs::exists(runs.file("run/checkpoints/1/worker-2.safetensors")));
}

}  // namespace
}  // namespace detente::test
