#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>

#include "common/staleness/policy.h"
#include "launch/job.h"
#include "launch/job_keys.h"
#include "launch/job_values.h"
#include "tests/temporary_folder.h"

namespace detente {
namespace {

std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines(1);
    for (const char c : text) {
        if (c == '\n') {
            lines.emplace_back();
        } else {
            lines.back() += c;
        }
    }
    return lines;
}

Job smallest() {
    const auto job = parse_job("[model]\nlibrary = \"m\"\n", "job.toml");
    REQUIRE(job.has_value());
    return *job;
}

// Comments as running text.
std::string without_breaks(std::string text) {
    for (std::size_t at = 0; (at = text.find("\n# ", at)) != std::string::npos;) {
        text.replace(at, 3, " ");
    }
    return text;
}

TEST_CASE("explain: shows every key there is, with meaning, unit, default and value") {
    const std::vector<std::string> lines = lines_of(explain(smallest()));
    const std::string text = explain(smallest());
    for (const Table& table : job_tables()) {
        const bool is_entry = table.repeated && table.prepare;
        const std::string header = (table.repeated ? "# " : "") +
                                   std::string(is_entry ? "[[" : "[") + table.path +
                                   (is_entry ? "]]" : "]");
        CAPTURE(header);
        auto at = lines.begin();
        if (!table.path.empty()) at = std::find(lines.begin(), lines.end(), header);
        REQUIRE(at != lines.end());
        for (const Key& key : table.keys) {
            CAPTURE(key.name);
            const std::string start = (table.repeated ? "# " : "") + key.name + " = ";
            const auto line = std::find_if(at, lines.end(), [&](const std::string& candidate) {
                return candidate.starts_with(start);
            });
            REQUIRE(line != lines.end());
            std::string comments;
            for (auto above = line; above != lines.begin();) {
                --above;
                // In a repeated table that nobody used, values are comments too.
                const std::size_t equals = above->find(" = ");
                const bool is_value = table.repeated && equals != std::string::npos &&
                                      above->find(' ', 2) == equals && (*above)[2] != '0';
                if (!above->starts_with("# ") || is_value) break;
                comments = above->substr(1) + comments;
            }
            CHECK_FALSE(key.meaning.empty());
            CHECK(comments.find(key.meaning) != std::string::npos);
            if (!key.unit.empty()) CHECK(comments.find("Unit: " + key.unit) != std::string::npos);
            const bool tells_default = comments.find("Default: ") != std::string::npos ||
                                       comments.find("Must be given.") != std::string::npos;
            CHECK(tells_default);
        }
    }
}

TEST_CASE("explain: tells a default apart from the value") {
    Job job = smallest();
    job.batch_samples = 7;
    CHECK(explain(job).find("# Samples of one step of one worker. Unit: samples. Default: 64.\n"
                            "batch = 7\n") != std::string::npos);
}

TEST_CASE("explain: every parameter of a policy or method is there with its meaning and default") {
    for (const std::string& policy : policy_names()) {
        CAPTURE(policy);
        Job job = smallest();
        job.policy.name = policy;
        job.policy_for.push_back({"heads.*", {policy, {}}});
        const std::string text = explain(job);
        for (const ExplainedParameter& parameter : policy_parameters(policy)) {
            const std::string line =
                "\n" + parameter.name + " = " + toml_parameter(parameter.standard) + "\n";
            CAPTURE(line);
            const std::size_t first = text.find(line);
            REQUIRE(first != std::string::npos);
            CHECK(text.find(line, first + 1) > text.find("[[staleness.for]]"));
            CHECK(without_breaks(text).find(parameter.meaning) != std::string::npos);
        }
    }
    Job job = smallest();
    job.aggregator.name = "pcgrad";
    CHECK(explain(job).find("\norder = \"drawn\"\n") != std::string::npos);
    // What nobody uses is shown as comments, its parameters too.
    CHECK(explain(smallest()).find("\n# tau_max = 8\n") != std::string::npos);
}

TEST_CASE("job: a resolved job names the parameters that its file left out, and reads the same") {
    const auto parsed = parse_job(
        "[model]\nlibrary = \"m\"\n[staleness]\npolicy = \"dc_asgd\"\nlambda_0 = 1.5\n"
        "[conflict]\nmethod = \"pcgrad\"\n",
        "job.toml");
    REQUIRE(parsed.has_value());
    const ParameterList wanted = {
        {"variant", "c"}, {"lambda", "0.04"}, {"lambda_0", "1.5"}, {"m", "0.95"}};
    CHECK(parsed->policy.parameters == wanted);
    CHECK(parsed->aggregator.parameters ==
          ParameterList{{"order", "drawn"}, {"preference", "none"}, {"cr_mogm", "0"}});
    const std::string text = to_toml(*parsed);
    CHECK(text.find("\nlambda = 0.04\n") != std::string::npos);
    const auto again = parse_job(text, "resolved.toml");
    REQUIRE(again.has_value());
    CHECK(again->policy.parameters == wanted);
    CHECK(to_toml(*again) == text);
    // Another policy drops them all, as it would those of a file.
    const auto other = parse_job(text, "resolved.toml", {"staleness.policy=ssp"});
    REQUIRE(other.has_value());
    CHECK(other->policy.parameters == ParameterList{{"s", "3"}});
}

// ---- what a job file names ----

void write(const std::filesystem::path& path, const std::string& text) {
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
}

TEST_CASE("read job: a bare library name is looked for beside the program, then beside the job") {
    const TemporaryFolder folder;
    const std::filesystem::path root = folder.path();
    write(root / "jobs" / "job.toml", "[model]\nlibrary = \"net\"\n[data]\ndir = \"../data\"\n");
    const std::string file = (root / "jobs" / "job.toml").string();
    const std::string program = (root / "bin").string();

    const auto missing = read_job(file, {}, program);
    REQUIRE_FALSE(missing.has_value());
    CHECK(missing.error().code == ErrorCode::bad_job);
    CHECK(missing.error().text.find(file + ": model.library: no model library 'net'; looked for " +
                                    (root / "bin/examples/libnet.so").string()) == 0);

    write(root / "jobs" / "libnet.so", "");
    const auto beside_job = read_job(file, {}, program);
    REQUIRE(beside_job.has_value());
    CHECK(beside_job->model_library == (root / "jobs/libnet.so").string());
    CHECK(beside_job->dataset_dir == (root / "data").string());

    write(root / "bin" / "examples" / "libnet.so", "");
    const auto beside_program = read_job(file, {}, program);
    REQUIRE(beside_program.has_value());
    CHECK(beside_program->model_library == (root / "bin/examples/libnet.so").string());

    write(root / "mine" / "own.so", "");
    const auto by_path = read_job(file, {"model.library=../mine/own.so"}, program);
    REQUIRE(by_path.has_value());
    CHECK(by_path->model_library == (root / "mine/own.so").string());
}

TEST_CASE("read job: a file that is not there, and a folder, are named") {
    const TemporaryFolder folder;
    const auto missing = read_job(folder / "no.toml", {}, "/");
    REQUIRE_FALSE(missing.has_value());
    CHECK(missing.error().text.find("no.toml: cannot read the job file") != std::string::npos);
    const auto is_folder = read_job(folder.path(), {}, "/");
    REQUIRE_FALSE(is_folder.has_value());
    CHECK(is_folder.error().text.find("expected a job file, found a folder") != std::string::npos);
}

}  // namespace
}  // namespace detente
