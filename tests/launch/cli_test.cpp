#include "launch/cli.h"

#include <catch2/catch.hpp>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <set>

#include "launch/child_process.h"
#include "launch/command_line.h"
#include "launch/describe.h"
#include "tests/temporary_folder.h"

namespace detente {
namespace {

int exit_code_of_command(std::vector<std::string> words) {
    words.insert(words.begin(), "detente");
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    return run_command_line(static_cast<int>(argv.size()), argv.data());
}

TEST_CASE("cli: mistakes on the command line end with the code for usage") {
    CHECK(exit_code_of_command({}) == 2);
    CHECK(exit_code_of_command({"no-such-verb"}) == 2);
    CHECK(exit_code_of_command({"job"}) == 2);
    CHECK(exit_code_of_command({"job", "/no/such/job.toml"}) == 2);
    CHECK(exit_code_of_command({"job", "x.toml", "--no-such-flag"}) == 2);
    CHECK(exit_code_of_command({"describe"}) == 2);
    CHECK(exit_code_of_command({"plan", "/no/such/job.toml"}) == 2);
    CHECK(exit_code_of_command({"--help"}) == 0);
    CHECK(exit_code_of_command({"--version"}) == 0);
}

TEST_CASE("cli: a job is checked with its --set, which takes one value each time") {
    const TemporaryFolder folder;
    const std::string file = folder / "job.toml";
    write_file(folder / "libnet.so", "");
    write_file(file, "[model]\nlibrary = \"net\"\n");
    CHECK(exit_code_of_command({"job", "--set", "workers=2", file}) == 0);
    CHECK(exit_code_of_command(
              {"job", "--set", "workers=2", "--set", "seed=2", file, "--explain"}) == 0);
    CHECK(exit_code_of_command({"job", file, "--set", "workers=0"}) == 2);
}

TEST_CASE("cli: seeds and other whole numbers below zero or past 2^53 are refused by every verb") {
    const TemporaryFolder folder;
    const std::string file = folder / "job.toml";
    write_file(folder / "libnet.so", "");
    write_file(file, "[model]\nlibrary = \"net\"\n");
    for (const std::string seed : {"-1", "-18446744073709551615", "9007199254740993", "1.5", "x"}) {
        CAPTURE(seed);
        CHECK(exit_code_of_command({"aggregate", "--list", "--seed=" + seed}) == 2);
        CHECK(exit_code_of_command({"simulate", file, "--seed=" + seed, "--out", folder / "run"}) ==
              2);
        CHECK(exit_code_of_command({"evaluate", folder / "run", "--checkpoint=" + seed}) == 2);
        CHECK(exit_code_of_command({"explain", folder / "run", "--step=" + seed}) == 2);
    }
    for (const std::string seed : {"0", "7", "9007199254740992"}) {
        CAPTURE(seed);
        CHECK(exit_code_of_command({"aggregate", "--list", "--seed", seed}) == 0);
        // Past the command line: that library is none.
        CHECK(exit_code_of_command({"simulate", file, "--seed", seed, "--out", folder / "run"}) ==
              value_of(ExitCode::model));
    }
    CHECK(exit_code_of_command({"aggregate", "--list", "--seed", "-1"}) == 2);
}

TEST_CASE("exit codes: every error has one, and none is success") {
    for (int code = 0; code <= static_cast<int>(ErrorCode::internal); ++code) {
        CHECK(exit_code_of(static_cast<ErrorCode>(code)) != ExitCode::ok);
    }
    CHECK(value_of(exit_code_of(ErrorCode::bad_job)) == 2);
    CHECK(value_of(exit_code_of(ErrorCode::bad_dataset)) == 3);
    CHECK(value_of(exit_code_of(ErrorCode::peer_lost)) == 4);
    CHECK(value_of(exit_code_of(ErrorCode::timed_out)) == 5);
    CHECK(value_of(ExitCode::books) == 6);
    CHECK(value_of(exit_code_of(ErrorCode::io)) == 7);
    CHECK(value_of(exit_code_of(ErrorCode::bad_checkpoint)) == 8);
}

TEST_CASE("child process: what it prints and how it ends comes back") {
    const auto child =
        run_child({"sh", "-c", "cat; echo wrong >&2; exit 3"}, "in", std::chrono::seconds(30));
    REQUIRE(child.has_value());
    CHECK(child->output == "in");
    CHECK(child->errors == "wrong\n");
    CHECK(child->exit_code == 3);

    const std::string large(1U << 20U, 'x');
    const auto echoed = run_child({"cat"}, large, std::chrono::seconds(30));
    REQUIRE(echoed.has_value());
    CHECK(echoed->output == large);
}

TEST_CASE("child process: a signal, a missing program and a deadline are told apart") {
    const auto killed = run_child({"sh", "-c", "kill -SEGV $$"}, "", std::chrono::seconds(30));
    REQUIRE(killed.has_value());
    CHECK(killed->signal == SIGSEGV);

    const auto missing = run_child({"/no/such/program"}, "", std::chrono::seconds(30));
    REQUIRE(missing.has_error());
    CHECK(missing.error().code == ErrorCode::io);
    CHECK(missing.error().text == "cannot start '/no/such/program': No such file or directory");

    const auto endless = run_child({"sh", "-c", "while :; do read line < /dev/zero; done"}, "",
                                   std::chrono::milliseconds(100));
    REQUIRE(endless.has_error());
    CHECK(endless.error().code == ErrorCode::timed_out);
}

TEST_CASE("describe: an error travels from child to parent with its code") {
    const Error error{ErrorCode::bad_dataset, "train.gz: truncated \"here\""};
    const auto read = error_from_json(to_json(error));
    REQUIRE(read.has_value());
    CHECK(read->code == error.code);
    CHECK(read->text == error.text);
    CHECK_FALSE(error_from_json("no JSON").has_value());
    CHECK_FALSE(error_from_json("{\"model\": 1}").has_value());
    CHECK_FALSE(error_from_json("{\"error\": 1, \"text\": 2}").has_value());
}

}  // namespace
}  // namespace detente
