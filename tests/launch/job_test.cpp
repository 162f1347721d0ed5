#include "launch/job.h"

#include <catch2/catch.hpp>

namespace detente {
namespace {

constexpr const char* kSmallest = "[model]\nlibrary = \"m\"\n";

std::string mistake(const std::string& text, const std::vector<std::string>& overrides = {}) {
    const auto job = parse_job(text, "job.toml", overrides);
    return job ? "no mistake" : job.error().text;
}

Job parsed(const std::string& text, const std::vector<std::string>& overrides = {}) {
    const auto job = parse_job(text, "job.toml", overrides);
    INFO((job ? "" : job.error().text));
    REQUIRE(job.has_value());
    return *job;
}

TEST_CASE("job: a model library is all a job file must name") {
    const Job job = parsed(kSmallest);
    CHECK(job.model_library == "m");
    CHECK(job.workers == 1);
    CHECK(job.rule.name == "sgd");
    CHECK(job.rule.learning_rate == 1e-3);  // torch.optim's default
    CHECK(job.push_pull);
    CHECK(mistake("name = \"x\"\n") ==
          "job.toml: model.library: is missing: name the model library, like library = "
          "\"multifashion\" in [model]");
}

TEST_CASE("job: every table is read into its place") {
    const Job job = parsed(R"(
name = "n"
seed = 9007199254740991
servers = 2
shards_per_server = 3
workers = 4
[model]
library = "lib.so"
frozen = ["trunk.*", "head?"]
[model.options]
depth = 3
rate = 0.5
kind = "deep"
wide = true
[[task]]
name = "left"
exclude = ["a.*"]
[[task]]
name = "right"
[data]
dir = "d"
batch = 32
epochs = 7
lease_batches = 2
[worker]
pull_ahead = 1
on_rejection = "recompute"
most_recomputes = 5
clip_norm = 1.5
threads = 2
[conflict]
method = "mgda"
space = "representation"
[gates]
enabled = false
initial = -4.5
[staleness]
policy = "bounded_reject"
tau_max = 3
[[staleness.for]]
pattern = "head*"
policy = "async"
[rule]
name = "adam"
learning_rate = 0.01
beta1 = 0.8
[rule.schedule]
name = "step"
step_samples = 100
[[rule.for]]
pattern = "trunk.*"
learning_rate = 1
[rule.for.schedule]
gamma = 0.5
[[rule.for]]
pattern = "head.*"
name = "adagrad"
[blocks]
bytes = 65536
[transport]
kind = "tcp"
checksum = "on"
message_bytes = "64KiB"
credit_bytes = "1 GiB"
bind_address = "0.0.0.0"
[on_loss]
worker = "stop"
[evaluate]
every = 1000
[checkpoint]
every = 2000
keep = 5
[ledger]
gradient_hashes = false
[deadlines]
start_s = 1
reply_s = 0.25
peer_s = 3
heartbeat_s = 0.1
stop_s = 4
)");
    CHECK(job.name == "n");
    CHECK(job.seed == 9007199254740991ULL);
    CHECK(job.shards() == 6);
    CHECK(job.workers == 4);
    CHECK(job.conflict_space == ConflictSpace::representation);
    CHECK_FALSE(job.gates_enabled);
    CHECK(job.gate_initial == -4.5);
    CHECK(job.frozen == std::vector<std::string>{"trunk.*", "head?"});
    CHECK(job.model_options ==
          std::vector<std::pair<std::string, std::string>>{
              {"depth", "3"}, {"kind", "deep"}, {"rate", "0.5"}, {"wide", "true"}});
    REQUIRE(job.tasks.size() == 2);
    CHECK(job.tasks[0].exclude == std::vector<std::string>{"a.*"});
    CHECK(job.tasks[1].name == "right");
    CHECK(job.dataset_dir == "d");
    CHECK(job.batch_samples == 32);
    CHECK(job.data_epochs == 7);
    CHECK(job.lease_batches == 2);
    CHECK_FALSE(job.push_pull);
    CHECK(job.pull_ahead == 1);
    CHECK(job.on_rejection == OnRejection::recompute);
    CHECK(job.most_recomputes == 5);
    CHECK(job.clip_norm == 1.5);
    CHECK(job.threads == 2);
    CHECK(job.aggregator.name == "mgda");
    CHECK(job.policy.parameters ==
          std::vector<std::pair<std::string, std::string>>{{"tau_max", "3"}});
    REQUIRE(job.policy_for.size() == 1);
    CHECK(job.policy_for[0].pattern == "head*");
    CHECK(job.policy_for[0].policy.name == "async");
    CHECK(job.rule.beta1 == 0.8);
    CHECK(job.schedule.step_samples == 100);
    CHECK(job.block_bytes == 65536);
    CHECK(job.transport == TransportKind::tcp);
    CHECK(job.checksum == ChecksumMode::on);
    CHECK(job.message_bytes == 65536);
    CHECK(job.credit_bytes == 1ULL << 30U);
    CHECK(job.bind_address == "0.0.0.0");
    CHECK(job.on_worker_loss == OnLoss::stop);
    CHECK(job.evaluate_every_samples == 1000);
    CHECK(job.checkpoint_every_samples == 2000);
    CHECK(job.checkpoints_kept == 5);
    CHECK_FALSE(job.gradient_hashes);
    CHECK(Job{}.gradient_hashes);
    CHECK(job.start_deadline == std::chrono::seconds(1));
    CHECK(job.reply_deadline == std::chrono::milliseconds(250));
    CHECK(job.peer_deadline == std::chrono::seconds(3));
    CHECK(job.heartbeat_interval == std::chrono::milliseconds(100));
    CHECK(job.stop_deadline == std::chrono::seconds(4));

    // A rule for some tensors starts as the job's, or as the defaults of the one it names.
    REQUIRE(job.rule_for.size() == 2);
    CHECK(job.rule_for[0].rule.name == "adam");
    CHECK(job.rule_for[0].rule.beta1 == 0.8);
    CHECK(job.rule_for[0].rule.learning_rate == 1);
    CHECK(job.rule_for[0].schedule.step_samples == 100);
    CHECK(job.rule_for[0].schedule.gamma == 0.5);
    CHECK(job.rule_for[1].rule.name == "adagrad");
    CHECK(job.rule_for[1].rule.eps == 1e-10);

    SECTION("and its resolved text is the same job again") {
        const std::string resolved = to_toml(job);
        CHECK(to_toml(parsed(resolved)) == resolved);
        const Job again = parsed(resolved);
        CHECK(again.model_options == job.model_options);
        CHECK_FALSE(again.push_pull);
        CHECK(again.rule_for[1].rule.eps == 1e-10);
        CHECK(again.reply_deadline == job.reply_deadline);
        CHECK(again.credit_bytes == job.credit_bytes);
    }
    SECTION("and its explained text too") { CHECK(to_toml(parsed(explain(job))) == to_toml(job)); }
}

TEST_CASE("job: texts survive the resolved form, whatever is in them") {
    Job job = parsed(kSmallest);
    job.dataset_dir = "a \"b\" \\ c\n\t\x7f # ö";
    job.model_options = {{"an odd key", "x"}, {"empty", ""},    {"float", "1e-05"},
                         {"number", "08"},    {"plus", "+8"},   {"text", "'\"\"\""},
                         {"truth", "true"},   {"whole", "-12"}, {"wide", "0x10"}};
    const Job again = parsed(to_toml(job));
    CHECK(again.dataset_dir == job.dataset_dir);
    auto expected = job.model_options;
    std::sort(expected.begin(), expected.end());
    CHECK(again.model_options == expected);
}

TEST_CASE("job: an unknown key names file, line and the nearest valid key") {
    CHECK(mistake("wrokers = 2\n[model]\nlibrary = \"m\"\n") ==
          "job.toml:1: wrokers: no such key; did you mean 'workers'? Valid at the top: name, seed, "
          "servers, shards_per_server, workers, places, model, task, mask, data, worker, conflict, "
          "gates, "
          "across, staleness, "
          "rule, blocks, transport, on_loss, evaluate, checkpoint, ledger, deadlines, launch, "
          "sync, simulate");
    CHECK(mistake(std::string(kSmallest) + "[data]\nbacth = 2\n") ==
          "job.toml:4: data.bacth: no such key; did you mean 'data.batch'? Valid in [data]: dir, "
          "batch, epochs, lease_batches");
    CHECK(mistake(std::string(kSmallest) + "[wroker]\nthreads = 2\n")
              .find("job.toml:3: wroker: no such key; did you mean 'worker'?") == 0);
    CHECK(mistake(std::string(kSmallest) + "[rule.shedule]\nfloor = 2\n")
              .find("job.toml:3: rule.shedule: no such key; did you mean 'rule.schedule'?") == 0);
    CHECK(
        mistake(std::string(kSmallest) +
                "[[rule.for]]\npattern = \"*\"\n[[rule.for]]\npattern = \"*\"\nlearnig_rate = 1\n")
            .find("job.toml:7: rule.for.1.learnig_rate: no such key; did you mean "
                  "'rule.for.learning_rate'?") == 0);
    CHECK(
        mistake(std::string(kSmallest) + "[staleness]\ntau_maks = 2\n")
            .find(
                "job.toml:4: staleness.tau_maks: no such key; did you mean 'staleness.tau_max'?") ==
        0);
}

TEST_CASE("job: a key in the wrong table is told where it belongs") {
    CHECK(mistake(std::string(kSmallest) + "[worker]\nbatch = 2\n") ==
          "job.toml:4: worker.batch: no such key here; it belongs in [data]: did you mean "
          "'data.batch'?");
    CHECK(mistake(std::string(kSmallest) + "servers = 2\n") ==
          "job.toml:3: model.servers: no such key here; it belongs in the top of the file: did you "
          "mean 'servers'?");
}

TEST_CASE("job: a wrong type or value names line, key, what was expected and what was found") {
    struct Case {
        std::string line;
        std::string message;
    };
    const std::vector<Case> cases = {
        {"[data]\nbatch = \"64\"",
         "data.batch: must be a whole number from 1 to 16777216, found the text \"64\""},
        {"[data]\nbatch = 0",
         "data.batch: must be a whole number from 1 to 16777216, found the number 0"},
        {"[data]\nbatch = 1.5",
         "data.batch: must be a whole number from 1 to 16777216, found the number 1.5"},
        {"[data]\nepochs = -1",
         "data.epochs: must be a whole number from 1 to 1000000000, found the number -1"},
        {"[data]\ndir = 3", "data.dir: must be a text in quotes, found the number 3"},
        {"[worker]\npush_pull = 1", "worker.push_pull: must be true or false, found the number 1"},
        {"[worker]\npull_ahead = 2",
         "worker.pull_ahead: must be a whole number from 0 to 1, found the number 2"},
        {"[worker]\nclip_norm = -0.5",
         "worker.clip_norm: must be a number, 0 or more, found the number -0.5"},
        {"[worker]\nclip_norm = nan",
         "worker.clip_norm: must be a number, 0 or more, found the number nan"},
        {"[worker]\nconsistent_pulls = true",
         "worker.consistent_pulls: policy 'bounded_reject' decides per block, so that shards have "
         "no order in "
         "common to cut at: set staleness.admission = \"step\" or choose a policy of scope step"},
        {"[worker]\non_rejection = \"retry\"",
         "worker.on_rejection: 'retry' is not one of them; did you mean 'refresh'? Valid: drop, "
         "refresh, recompute, compensate"},
        {"[worker]\non_rejection = true",
         "worker.on_rejection: must be one of drop, refresh, recompute, compensate, found true"},
        {"[transport]\nmessage_bytes = \"8MiB\"",
         "transport.message_bytes: must be bytes from 4KiB to 4MiB, as a whole number or a text "
         "like \"64KiB\" or \"1MiB\", found the text \"8MiB\""},
        {"[transport]\nmessage_bytes = \"1MB\"",
         "transport.message_bytes: must be bytes from 4KiB to 4MiB, as a whole number or a text "
         "like \"64KiB\" or \"1MiB\", found the text \"1MB\""},
        {"[transport]\nmessage_bytes = \"99999999999GiB\"",
         "transport.message_bytes: must be bytes from 4KiB to 4MiB, as a whole number or a text "
         "like \"64KiB\" or \"1MiB\", found the text \"99999999999GiB\""},
        {"[transport]\nbind_address = \"\"", "transport.bind_address: must not be empty"},
        {"[deadlines]\npeer_s = 0",
         "deadlines.peer_s: must be a number of seconds from 0.001 to 1000000, found the number 0"},
        {"[deadlines]\npeer_s = 2020-01-01",
         "deadlines.peer_s: must be a number of seconds from 0.001 to 1000000, found a date or "
         "time"},
        {"[rule]\nname = \"adm\"",
         "rule.name: 'adm' is not one of them; did you mean 'adam'? Valid: sgd, adagrad, rmsprop, "
         "adam, adamw"},
        {"[model.options]\nlist = [1]",
         "model.options.list: must be a text, a number, true or false, found a list"},
    };
    for (const Case& c : cases) {
        CAPTURE(c.line);
        CHECK(mistake(std::string(kSmallest) + c.line + "\n") == "job.toml:4: " + c.message);
    }
    CHECK(mistake("[model]\nlibrary = \"m\"\nfrozen = \"trunk\"\n") ==
          "job.toml:3: model.frozen: must be a list of texts like [\"a.*\", \"b\"], found the text "
          "\"trunk\"");
    CHECK(mistake("[model]\nlibrary = \"m\"\nfrozen = [1]\n") ==
          "job.toml:3: model.frozen: must be a list of texts like [\"a.*\", \"b\"], found the "
          "number 1 in it");
    CHECK(mistake("model = 3\n")
              .find("job.toml:1: model: must be a table, [model], found the "
                    "number 3") == 0);
    CHECK(mistake(std::string(kSmallest) + "[task]\nname = \"x\"\n") ==
          "job.toml:3: task: must be written as [[task]], found a table");
    CHECK(mistake(std::string(kSmallest) + "[[task]]\nexclude = []\n") ==
          "job.toml:3: task.0.name: is missing: every [[task]] needs it");
}

TEST_CASE("job: what does not go together is refused at the key to change") {
    struct Case {
        std::string text;
        std::string message;
    };
    const std::vector<Case> cases = {
        {"[worker]\npull_ahead = 1\npush_pull = true",
         "job.toml:5: worker.push_pull: needs pull_ahead = 0"},
        {"[blocks]\nbytes = 5000",
         "job.toml:4: blocks.bytes: must be a multiple of 4096, found "
         "5000: 4096 is the nearest below"},
        {"[transport]\ncredit_bytes = \"64KiB\"",
         "job.toml:4: transport.credit_bytes: must hold at least one message of 1048576 bytes"},
        {"[deadlines]\nheartbeat_s = 5",
         "job.toml:4: deadlines.heartbeat_s: must be below peer_s "
         "= 5 (or every process looks lost), found 5"},
        {"[[task]]\nname = \"a\"\n[[task]]\nname = \"a\"",
         "job.toml:6: task.1.name: task 'a' is there twice"},
        {"[rule]\nname = \"adam\"\nmomentum = 0.9",
         "job.toml:5: rule.momentum: rule 'adam' has no "
         "momentum (only sgd and rmsprop): remove it"},
        {"[rule]\nmomentum = 1", "job.toml:4: rule.momentum: rule 'sgd': momentum must be"},
        {"[rule]\nnesterov = true", "job.toml:4: rule.nesterov: rule 'sgd': nesterov needs"},
        {"[rule.schedule]\nname = \"cosine\"\ntotal_samples = 0",
         "job.toml:5: rule.schedule.total_samples: schedule 'cosine' needs total_samples"},
        {"[[rule.for]]\npattern = \"*\"\nmomentum = 2",
         "job.toml:5: rule.for.0.momentum: rule 'sgd': momentum must be"},
        {"[staleness]\npolicy = \"bounded_reject\"\ntau_max = -1",
         "job.toml:5: staleness.tau_max: "},
        {"[[staleness.for]]\npattern = \"*\"\npolicy = \"bounded_reject\"\ntau_max = \"many\"",
         "job.toml:6: staleness.for.0.tau_max: "},
        {"[[mask]]\npattern = \"*\"\nexclusive = \"striped\"",
         "job.toml:5: mask.0.exclusive: 'striped' is not one of them; did you mean 'strided'? "
         "Valid: "
         "runs, strided"},
        {"[conflict]\nspace = \"representation\"\nscope = \"layer\"",
         "job.toml:5: conflict.scope: must be global under conflict.space = \"representation\""},
        {"[conflict]\nspace = \"representation\"\nmethod = \"graddrop\"",
         "job.toml:4: conflict.space: must be parameters under conflict.method = 'graddrop', which "
         "works coordinate by coordinate"},
        {"[conflict]\nspace = \"representation\"\nmethod = \"moco\"",
         "job.toml:4: conflict.space: must be parameters under conflict.method = 'moco', which "
         "averages each task's gradient"},
        {"[conflict]\nspace = \"representation\"\nmethod = \"modo\"",
         "job.toml:4: conflict.space: must be parameters under conflict.method = 'modo', which "
         "needs two independent halves"},
        {"[conflict]\nspace = \"representation\"\nmethod = \"excess_mtl\"",
         "job.toml:4: conflict.space: must be parameters under conflict.method = 'excess_mtl', "
         "which keeps a sum of squares"},
        {"[staleness]\npolicy = \"easgd\"\n[rule.schedule]\nwarmup_samples = 64",
         "job.toml:4: staleness.policy: 'easgd' divides by the learning rate, which must stay "
         "above "
         "0: set rule.schedule.warmup_samples = 0"},
        {"[staleness]\npolicy = \"easgd\"\n[rule.schedule]\nname = \"cosine\"\n"
         "total_samples = 640",
         "job.toml:4: staleness.policy: 'easgd' divides by the learning rate, which must stay "
         "above "
         "0: set rule.schedule.warmup_samples = 0"},
    };
    for (const Case& c : cases) {
        CAPTURE(c.text);
        const std::string found = mistake(std::string(kSmallest) + c.text + "\n");
        CHECK(found.substr(0, c.message.size()) == c.message);
    }
}

TEST_CASE("job: a name that could lead out of the folder of runs is refused") {
    for (const char* name : {"a", "3", "a-b_c.d", "A..b", "multifashion"}) {
        CAPTURE(name);
        CHECK(parsed(std::string("name = '") + name + "'\n" + kSmallest).name == name);
    }
    const std::string longest(100, 'x');
    CHECK(parsed("name = '" + longest + "'\n" + kSmallest).name == longest);
    for (const std::string& name :
         {std::string(""), std::string("../../esc"), std::string("a/b"), std::string(".."),
          std::string(".hidden"), std::string("-out"), std::string("a b"), std::string("a\\b"),
          std::string("ö"), longest + "x"}) {
        CAPTURE(name);
        const std::string expected =
            "job.toml:1: name: must be 1 to 100 letters (a to z, A to Z), digits, '.', '_' or '-'";
        const std::string found = mistake("name = '" + name + "'\n" + kSmallest);
        CHECK(found.substr(0, expected.size()) == expected);
    }
    const std::string set = mistake(kSmallest, {"name=../x"});
    CHECK(set.find("--set name=../x: name: must be ") == 0);
    CHECK(set.find("found \"../x\". To choose where a run is kept use --out DIR") !=
          std::string::npos);
    CHECK(mistake("name = \"a\\nb\"\n" + std::string(kSmallest)).find("\\u000A") !=
          std::string::npos);
}

TEST_CASE("job: fixed ports leave room for every shard below the last port there is") {
    const auto at = [](const std::string& top, int port) {
        return top + kSmallest + "[transport]\nport = " + std::to_string(port) + "\n";
    };
    const std::string six = "servers = 2\nshards_per_server = 3\n";
    CHECK(parsed(at(six, 65529)).port == 65529);
    CHECK(mistake(at(six, 65530)) ==
          "job.toml:6: transport.port: the coordinator listens there and the job's 6 shards on the "
          "ports above it, up to 65536, but the last port is 65535: found 65530, set at most "
          "65529, or 0 for free ports");
    CHECK(parsed(at("", 65534)).port == 65534);
    CHECK(mistake(at("", 65535)).find("set at most 65534, or 0 for free ports") !=
          std::string::npos);
    const std::string most = "servers = 1024\nshards_per_server = 256\n";
    CHECK(parsed(at(most, 0)).shards() == 262144);
    CHECK(mistake(at(most, 1)).find("set 0 for free ports: no port leaves room for so many") !=
          std::string::npos);
}

TEST_CASE("job: every mistake is told, not only the first") {
    const std::string text =
        mistake("wrokers = 1\nservers = 0\n[model]\nlibrary = \"m\"\n[data]\nbatch = \"x\"\n");
    CHECK(text.find("job.toml:1: wrokers") != std::string::npos);
    CHECK(text.find("job.toml:2: servers") != std::string::npos);
    CHECK(text.find("job.toml:6: data.batch") != std::string::npos);
}

TEST_CASE("job: what is no TOML names its line") {
    CHECK(mistake("[model]\nlibrary = m\n").find("job.toml:2: not TOML: ") == 0);
    CHECK(mistake("[model\n").find("job.toml:1: not TOML: ") == 0);
    CHECK(mistake("workers = 1\nworkers = 2\n").find("job.toml:2: not TOML: ") == 0);
}

TEST_CASE("job: --set overrides the file, with values as in TOML or as bare words") {
    const Job job = parsed(std::string(kSmallest) +
                               "[data]\nbatch = 3\n[[rule.for]]\npattern = "
                               "\"*\"\n",
                           {"data.batch=5", "workers=7", "name=42", "conflict.method=pcgrad",
                            "transport.message_bytes=64KiB", "model.frozen=[\"a\", \"b\"]",
                            "model.options.text=two words", "rule.for.0.learning_rate=0.5"});
    CHECK(job.batch_samples == 5);
    CHECK(job.workers == 7);
    CHECK(job.name == "42");
    CHECK(job.aggregator.name == "pcgrad");
    CHECK(job.message_bytes == 65536);
    CHECK(job.frozen == std::vector<std::string>{"a", "b"});
    CHECK(job.model_options[0].second == "two words");
    CHECK(job.rule_for[0].rule.learning_rate == 0.5);
}

TEST_CASE("job: a mistake in --set is told as such") {
    CHECK(mistake(kSmallest, {"wrokers=2"})
              .find("--set wrokers=2: wrokers: no such key; did you mean 'workers'?") == 0);
    CHECK(mistake(kSmallest, {"data.bacth=2"})
              .find("--set data.bacth=2: data.bacth: no such key; did you mean 'data.batch'?") ==
          0);
    CHECK(mistake(kSmallest, {"dtaa.batch=2"})
              .find("--set dtaa.batch=2: dtaa: no such key; did you mean 'data'?") == 0);
    CHECK(mistake(kSmallest, {"workers=two"}) ==
          "--set workers=two: workers: must be a whole number from 1 to 65536, found the text "
          "\"two\"");
    CHECK(mistake(kSmallest, {"workers"}) ==
          "--set workers: must be KEY=VALUE, like --set workers=2");
    CHECK(mistake(kSmallest, {"rule.for.0.eps=1"})
              .find("--set rule.for.0.eps=1: there is no entry "
                    "0") == 0);
    CHECK(mistake(std::string(kSmallest) + "[[task]]\nname = \"a\"\n", {"task.1.name=b"}) ==
          "--set task.1.name=b: '1' must be the number of an entry, from 0 to 0");
    CHECK(mistake(std::string(kSmallest) + "[[task]]\nname = \"a\"\n", {"task.name=b"})
              .find("--set task.name=b: ") == 0);
    CHECK(mistake(kSmallest, {"model.library.x=1"})
              .find("--set model.library.x=1: 'model.library' "
                    "has no keys below it") == 0);
    CHECK(mistake(kSmallest, {"worker.pull_ahead=1", "worker.push_pull=true"})
              .find("--set worker.push_pull=true: worker.push_pull: needs pull_ahead = 0") == 0);
}

TEST_CASE("job: --set of another policy leaves the old one's parameters behind") {
    const std::string text =
        std::string(kSmallest) + "[staleness]\npolicy = \"bounded_reject\"\ntau_max = 3\n";
    CHECK(parsed(text, {"staleness.policy=async"}).policy.parameters.empty());
    CHECK(mistake(text, {"staleness.policy=async", "staleness.tau_max=4"})
              .find("--set staleness.tau_max=4: staleness.tau_max: no such key") == 0);
}

TEST_CASE("job: push_pull is on with pull_ahead 0 and off without, unless said") {
    CHECK(parsed(kSmallest).push_pull);
    CHECK_FALSE(parsed(kSmallest, {"worker.pull_ahead=1"}).push_pull);
    CHECK_FALSE(parsed(kSmallest, {"worker.push_pull=false"}).push_pull);
}

}  // namespace

TEST_CASE("job: --set of another policy takes its own defaults for names that both policies have") {
    const std::string file =
        "[model]\nlibrary = \"m\"\n[staleness]\npolicy = \"polynomial\"\na = 0.25\n";
    const auto hinge = parse_job(file, "job.toml", {"staleness.policy=hinge"});
    REQUIRE(hinge.has_value());
    const auto plain =
        parse_job("[model]\nlibrary = \"m\"\n[staleness]\npolicy = \"hinge\"\n", "job.toml");
    REQUIRE(plain.has_value());
    CHECK(hinge->policy.parameters == plain->policy.parameters);
    const auto chosen = parse_job(file, "job.toml", {"staleness.policy=hinge", "staleness.a=3"});
    REQUIRE(chosen.has_value());
    CHECK(chosen->policy.parameters.front() == std::pair<std::string, std::string>{"a", "3"});
    const auto same = parse_job(file, "job.toml", {"staleness.policy=polynomial"});
    REQUIRE(same.has_value());
    CHECK(same->policy.parameters.front() == std::pair<std::string, std::string>{"a", "0.25"});
}

}  // namespace detente
