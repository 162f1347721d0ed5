#include "common/runtime/disk.h"

#include <catch2/catch.hpp>
#include <filesystem>

#include "tests/temporary_folder.h"

namespace detente {
namespace {

namespace fs = std::filesystem;

TEST_CASE("disk: a copy is whole and replaces what was there and leaves nothing beside it") {
    const TemporaryFolder folder;
    std::string bytes((3U << 20U) + 5, 'x');
    for (std::size_t i = 0; i < bytes.size(); i += 1009) bytes[i] = static_cast<char>(i);
    for (const std::string& content : {bytes, std::string()}) {
        write_file(folder / "from", content);
        REQUIRE(copy_whole_file(folder / "from", folder / "to").has_value());
        CHECK(bytes_of_file(folder / "to") == content);
        CHECK_FALSE(fs::exists(folder / "to.partial"));
    }
}

TEST_CASE("disk: a copy that fails names the file and leaves no part of it") {
    const TemporaryFolder folder;
    write_file(folder / "from", "bytes");
    fs::create_directory(folder / "to");
    write_file(folder / "to/one", "in the way");
    const auto onto = copy_whole_file(folder / "from", folder / "to");
    REQUIRE(onto.has_error());
    CHECK(onto.error().code == ErrorCode::io);
    CHECK_THAT(onto.error().text, Catch::Contains(folder / "to"));
    CHECK_FALSE(fs::exists(folder / "to.partial"));
    const auto missing = copy_whole_file(folder / "nowhere", folder / "x");
    REQUIRE(missing.has_error());
    CHECK_THAT(missing.error().text, Catch::Contains(folder / "nowhere"));
    CHECK_FALSE(fs::exists(folder / "x.partial"));
    // A full disk, as far as writing goes.
    fs::create_symlink("/dev/full", folder / "full.partial");
    const auto full = copy_whole_file(folder / "from", folder / "full");
    REQUIRE(full.has_error());
    CHECK_THAT(full.error().text, Catch::Contains("free some space"));
    CHECK_FALSE(fs::is_symlink(folder / "full.partial"));
}

}  // namespace
}  // namespace detente
