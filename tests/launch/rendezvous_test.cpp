#include "launch/rendezvous.h"

#include <catch2/catch.hpp>

#include "launch/join.h"
#include "tests/temporary_folder.h"

namespace detente {
namespace {

TEST_CASE("rendezvous: two live launches cannot hold one file, and the second is told the first") {
    const TemporaryFolder folder;
    const std::string file = folder / "runs/.join-x-3";
    {
        auto first = Rendezvous::hold(file);
        REQUIRE(first.has_value());
        const auto early = Rendezvous::hold(file);
        REQUIRE(early.has_error());
        CHECK(early.error().text.find("(it is starting)") != std::string::npos);
        REQUIRE(first->announce("127.0.0.1:4711").has_value());
        CHECK(bytes_of_file(file) == "127.0.0.1:4711\n");
        const auto second = Rendezvous::hold(file);
        REQUIRE(second.has_error());
        CHECK(second.error().code == ErrorCode::io);
        CHECK_THAT(second.error().text, Catch::Contains(file) &&
                                            Catch::Contains("127.0.0.1:4711") &&
                                            Catch::Contains("--out DIR or DETENTE_LAUNCH_KEY"));
        CHECK(bytes_of_file(file) == "127.0.0.1:4711\n");  // and the first goes on
    }
    CHECK_FALSE(std::filesystem::exists(file));
    CHECK(Rendezvous::hold(file).has_value());
}

TEST_CASE("rendezvous: the file of a killed run is taken over and emptied") {
    const TemporaryFolder folder;
    write_file(folder / "left", "127.0.0.1:1\n");
    const auto held = Rendezvous::hold(folder / "left");
    REQUIRE(held.has_value());
    CHECK(bytes_of_file(folder / "left").empty());
}

TEST_CASE("rendezvous: a folder that cannot be is named") {
    const TemporaryFolder folder;
    write_file(folder / "file", "");
    const auto held = Rendezvous::hold(folder / "file/.join-x-3");
    REQUIRE(held.has_error());
    CHECK(held.error().code == ErrorCode::io);
    CHECK(held.error().text.find("file/.join-x-3") != std::string::npos);
}

TEST_CASE(
    "rendezvous: launches in one folder that have keys of their own have files of their own") {
    Placement one;
    one.size = 4;
    one.launch_key = "mpich-here-7";
    Placement other = one;
    other.launch_key = "mpich-here-8";
    Job job;
    job.name = "tiny";
    CHECK(rendezvous_file("", job, one) == "runs/.join-tiny-4-mpich-here-7");
    CHECK(rendezvous_file("", job, one) != rendezvous_file("", job, other));
}

}  // namespace
}  // namespace detente
