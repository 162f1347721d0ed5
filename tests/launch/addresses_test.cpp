#include "launch/addresses.h"

#include <catch2/catch.hpp>

#include "launch/roles.h"

namespace detente {
namespace {

const std::vector<Interface> kHere = {
    {"lo", "127.0.0.1"}, {"eth0", "192.168.7.3"}, {"ib0", "10.1.2.3"}, {"ib0", "10.1.9.9"}};

std::string own(const std::string& text) {
    const auto address = own_address(text, kHere);
    return address ? *address : address.error().text;
}

TEST_CASE("addresses: an address, an interface or a network stand for this host's own") {
    CHECK(own("0.0.0.0") == "0.0.0.0");
    CHECK(own("127.0.0.2") == "127.0.0.2");
    CHECK(own("ib0") == "10.1.2.3");
    CHECK(own("10.1.0.0/16") == "10.1.2.3");
    CHECK(own("10.1.9.0/24") == "10.1.9.9");
    CHECK(own("192.168.7.77/24") == "192.168.7.3");
    CHECK(own("0.0.0.0/0") == "127.0.0.1");
}

TEST_CASE("addresses: what this host has not is refused with what it has") {
    CHECK(own("eth7") ==
          "'eth7': expected an address, an interface's name, or a network like 10.1.0.0/16; " +
              this_host() + " has lo 127.0.0.1, eth0 192.168.7.3, ib0 10.1.2.3, ib0 10.1.9.9");
    CHECK(own("10.2.0.0/16").find("'10.2.0.0/16': expected a network that this host is in") == 0);
    CHECK(own("10.1.0.0/33").find("'10.1.0.0/33': expected an address") == 0);
    CHECK(own_address("eth0", {}).error().text.find("has no interface that is up") !=
          std::string::npos);
}

std::string where(const ListeningWish& wish) {
    const auto found = listening(wish, kHere);
    if (!found) return found.error().text;
    return found->bind + " " + found->advertise;
}

TEST_CASE("addresses: under auto one host listens on loopback") {
    CHECK(where({}) == "127.0.0.1 127.0.0.1");
    CHECK(where({.control = "127.0.0.1"}) == "127.0.0.1 127.0.0.1");
}

TEST_CASE("addresses: under auto a server listens where it reaches the coordinator from") {
    CHECK(where({.several_hosts = true, .control = "10.1.2.3"}) == "10.1.2.3 10.1.2.3");
    CHECK(where({.control = "10.1.2.3"}) == "10.1.2.3 10.1.2.3");
    // Beside the coordinator, whose name stands for loopback there (Debian's 127.0.1.1).
    const std::string beside = where({.several_hosts = true, .control = "127.0.0.1"});
    CHECK(beside.find("0.0.0.0 ") == 0);
    CHECK(beside.find("127.") == std::string::npos);
}

TEST_CASE("addresses: bound and told apart, each as the job says") {
    CHECK(where({.bind = "0.0.0.0", .advertise = "203.0.113.9"}) == "0.0.0.0 203.0.113.9");
    CHECK(where({.bind = "eth0", .advertise = "ib0"}) == "192.168.7.3 10.1.2.3");
    CHECK(where({.bind = "0.0.0.0", .advertise = "10.1.0.0/16"}) == "0.0.0.0 10.1.2.3");
    CHECK(where({.bind = "0.0.0.0", .advertise = "localhost"}) == "0.0.0.0 localhost");
    CHECK(where({.bind = "0.0.0.0", .several_hosts = true, .control = "10.1.9.9"}) ==
          "0.0.0.0 10.1.9.9");
    CHECK(where({.bind = "eth7"}).find("transport.bind_address = 'eth7': expected") == 0);
    CHECK(where({.advertise = "no.such.name.invalid"})
              .find("transport.advertise_address = 'no.such.name.invalid': expected") == 0);
}

TEST_CASE("addresses: this host's interfaces are read and loopback is no address for others") {
    const auto here = own_interfaces();
    CHECK(own_address("lo", here).has_value());
    CHECK(reachable_address({{"lo", "127.0.0.1"}}) == "127.0.0.1");
    CHECK(is_loopback("127.3.2.1"));
    CHECK_FALSE(is_loopback("10.0.0.1"));
}

}  // namespace
}  // namespace detente
