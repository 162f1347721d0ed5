// Both ends of a control link over real sockets on loopback.
#include <arpa/inet.h>
#include <fmt/core.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <boost/asio/steady_timer.hpp>
#include <catch2/catch.hpp>
#include <future>

#include "common/build_id.h"
#include "common/codec/codec.h"
#include "launch/control_client.h"
#include "launch/control_server.h"
#include "launch/role_link.h"
#include "launch/roles.h"

namespace detente {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// A coordinator's end that notes what happens, run by the test until something holds.
struct Hub {
    explicit Hub(std::uint64_t build = build_id())
        : server(loop, greeting(build),
                 {.received = [this](Message&& message) { got.push_back(std::move(message)); },
                  .closed = [this](NodeId node, const std::string&) { gone.push_back(node); },
                  .warn = [this](const std::string& text) { warnings.push_back(text); }}) {
        REQUIRE(server.listen("127.0.0.1", 0).has_value());
    }
    static Message greeting(std::uint64_t build) {
        Message message;
        message.envelope.generation = Generation{77};
        message.envelope.build = build;
        Welcome welcome;
        welcome.job = "[model]\nlibrary = \"m\"\n";
        welcome.model = "/runs/x";
        welcome.host = "there";
        welcome.build = "detente 0.0.9";
        message.body = welcome;
        return message;
    }
    template <class Holds>
    bool run_until(Holds holds) {
        const auto until = std::chrono::steady_clock::now() + seconds(10);
        while (!holds() && std::chrono::steady_clock::now() < until) {
            loop.restart();
            loop.run_one_for(milliseconds(50));
        }
        return holds();
    }
    // Connecting waits for the greeting, so the hub must turn meanwhile.
    Result<std::unique_ptr<ControlClient>> connect(std::optional<NodeId> speaks_for = {}) {
        auto client = std::async(std::launch::async, [this, speaks_for] {
            return ControlClient::connect(fmt::format("127.0.0.1:{}", server.port()), seconds(5),
                                          speaks_for);
        });
        REQUIRE(
            run_until([&] { return client.wait_for(seconds(0)) == std::future_status::ready; }));
        return client.get();
    }
    boost::asio::io_context loop{1};
    std::vector<Message> got;
    std::vector<NodeId> gone;
    std::vector<std::string> warnings;
    ControlServer server;
};

Message hello_of(NodeId node) {
    Message message;
    message.envelope.from = node;
    message.body = Hello{};
    return message;
}

TEST_CASE("control link: greets, carries messages both ways, and tells of its end") {
    Hub hub;
    auto client = hub.connect();
    REQUIRE(client.has_value());
    CHECK((*client)->generation() == Generation{77});
    CHECK((*client)->run_dir() == "/runs/x");
    std::promise<Message> arrived;
    (*client)->start({.received = [&](Message&& message) { arrived.set_value(std::move(message)); },
                      .closed = [](const std::string&) {}});
    const NodeId shards[] = {node_of(ShardId{0}), node_of(ShardId{1})};
    for (const NodeId shard : shards) (*client)->send(hello_of(shard));
    REQUIRE(hub.run_until([&] { return hub.got.size() == 2; }));
    CHECK(hub.server.connected(shards[1]));

    Message stop;
    stop.envelope.to = shards[1];
    stop.body = Stop{"enough", false};
    hub.server.send(shards[1], stop);
    REQUIRE(hub.run_until([&] { return hub.server.all_written(); }));
    const Message received = arrived.get_future().get();
    CHECK(received.envelope.to == shards[1]);
    CHECK(std::get<Stop>(received.body).reason == "enough");

    client->reset();
    REQUIRE(hub.run_until([&] { return hub.gone.size() == 2; }));
    CHECK_FALSE(hub.server.connected(shards[0]));
}

TEST_CASE("control link: whoever is dropped still reads what was sent to it before") {
    Hub hub;
    std::promise<std::string> ended;
    std::vector<std::string> read;  // by the link's thread, until it has ended
    auto client = hub.connect();    // goes first
    (*client)->start(
        {.received =
             [&](Message&& message) { read.push_back(std::get<Stop>(message.body).reason); },
         .closed = [&](const std::string& reason) { ended.set_value(reason); }});
    const NodeId worker = node_of(WorkerId{0});
    (*client)->send(hello_of(worker));
    REQUIRE(hub.run_until([&] { return hub.got.size() == 1; }));
    for (const char* word : {"a sign of life", "given up", "for good"}) {
        Message message;
        message.envelope.to = worker;
        message.body = Stop{word, false};
        hub.server.send(worker, message);
    }
    hub.server.drop(worker);  // before the loop has turned once
    CHECK_FALSE(hub.server.connected(worker));
    auto end = ended.get_future();
    REQUIRE(hub.run_until([&] { return end.wait_for(seconds(0)) == std::future_status::ready; }));
    CHECK(read == std::vector<std::string>{"a sign of life", "given up", "for good"});
    CHECK(hub.gone.empty());
}

// A peer that is no ControlClient: it does not read.
struct RawPeer {
    explicit RawPeer(const Hub& hub) {
        sockaddr_in to{};
        to.sin_family = AF_INET;
        to.sin_port = htons(hub.server.port());
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        REQUIRE(::connect(socket, reinterpret_cast<sockaddr*>(&to), sizeof(to)) == 0);
        const int on = 1;  // else what it says last waits here, and goes down with the socket
        ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
    ~RawPeer() { ::close(socket); }
    RawPeer(const RawPeer&) = delete;
    RawPeer& operator=(const RawPeer&) = delete;
    void say(const void* bytes, std::size_t count) const {
        REQUIRE(::send(socket, bytes, count, MSG_NOSIGNAL) == static_cast<ssize_t>(count));
    }
    void say(const Message& message) const {
        const auto bytes = encode_stream(message);
        say(bytes.data(), bytes.size());
    }
    int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
};

TEST_CASE("control link: last words are heard though writing to whoever said them fails first") {
    Hub hub;
    const NodeId worker = node_of(WorkerId{0});
    {
        const RawPeer peer(hub);
        peer.say(hello_of(worker));
        REQUIRE(hub.run_until([&] { return hub.got.size() == 1; }));
        for (int step = 0; step < 5; ++step) {
            Message message;
            message.envelope.from = worker;
            message.body = Status{.activity = std::to_string(step)};
            peer.say(message);
        }
    }
    // The first is answered by a reset, the others fail, before the loop has turned once.
    for (int word = 0; word < 3; ++word) {
        Message message;
        message.envelope.to = worker;
        message.body = Stop{"enough", false};
        hub.server.send(worker, message);
    }
    REQUIRE(hub.run_until([&] { return !hub.gone.empty(); }));
    REQUIRE(hub.got.size() == 6);
    CHECK(std::get<Status>(hub.got.back().body).activity == "4");
    CHECK(hub.gone == std::vector<NodeId>{worker});
}

TEST_CASE(
    "control link: whoever leaves waits until its last word was read and the other end closed") {
    Hub hub;
    auto client = hub.connect();
    (*client)->start({.received = [](Message&&) {}, .closed = [](const std::string&) {}});
    const NodeId worker = node_of(WorkerId{0});
    (*client)->send(hello_of(worker));
    REQUIRE(hub.run_until([&] { return hub.got.size() == 1; }));
    Message word;
    word.envelope.from = worker;
    word.body = Stopped{.error = "the last word"};
    (*client)->send(word);
    auto left = std::async(std::launch::async, [&] { (*client)->leave(seconds(10)); });
    CHECK(left.wait_for(milliseconds(20)) == std::future_status::timeout);  // nobody reads yet
    REQUIRE(hub.run_until([&] { return left.wait_for(seconds(0)) == std::future_status::ready; }));
    REQUIRE(hub.got.size() == 2);
    CHECK(std::get<Stopped>(hub.got.back().body).error == "the last word");
    CHECK(hub.gone == std::vector<NodeId>{worker});
    (*client)->leave(seconds(10));  // nobody is there any more: at once
}

TEST_CASE("role link: may go at the moment its coordinator does") {
    for (int round = 0; round < 40; ++round) {
        Hub hub;
        auto client = hub.connect();
        auto link = std::make_unique<RoleLink>(std::move(*client), RoleOptions{});
        REQUIRE(link->begin().has_value());
        link->speak_for(node_of(WorkerId{0}));
        link->hello(node_of(WorkerId{0}), Endpoint{.node = node_of(WorkerId{0})}, false);
        REQUIRE(hub.run_until([&] { return hub.got.size() == 1; }));
        hub.server.close();  // which the link's thread hears while the link ends
        link.reset();
    }
}

TEST_CASE("control link: a node that is connected cannot be taken over") {
    Hub hub;
    auto first = hub.connect();
    auto second = hub.connect();
    std::promise<std::string> refused;
    (*first)->start({.received = [](Message&&) {}, .closed = [](const std::string&) {}});
    (*second)->start({.received = [](Message&&) {},
                      .closed = [&](const std::string& reason) { refused.set_value(reason); }});
    (*first)->send(hello_of(node_of(WorkerId{0})));
    REQUIRE(hub.run_until([&] { return hub.got.size() == 1; }));
    (*second)->send(hello_of(node_of(WorkerId{0})));
    auto news = refused.get_future();
    REQUIRE(hub.run_until([&] { return news.wait_for(seconds(0)) == std::future_status::ready; }));
    CHECK(hub.server.connected(node_of(WorkerId{0})));
    CHECK(hub.gone.empty());
    CHECK_THAT(hub.warnings.at(0), Catch::Contains("claims to be worker:0"));
}

TEST_CASE("control link: heartbeats are sent for a node that loads, until it runs") {
    Hub hub;
    auto client = hub.connect();
    (*client)->start({.received = [](Message&&) {}, .closed = [](const std::string&) {}});
    const NodeId worker = node_of(WorkerId{3});
    (*client)->send(hello_of(worker));
    (*client)->announce(worker, "loading", milliseconds(5));
    REQUIRE(hub.run_until([&] { return hub.got.size() >= 4; }));
    CHECK(std::get<Status>(hub.got.back().body).activity == "loading");
    CHECK(hub.got.back().envelope.from == worker);
    (*client)->announce(worker, "", {});
    Message mark;
    mark.envelope.from = worker;
    mark.body = Ready{};
    (*client)->send(mark);
    const auto is_mark = [](const Message& m) { return std::holds_alternative<Ready>(m.body); };
    REQUIRE(hub.run_until([&] { return is_mark(hub.got.back()); }));
}

TEST_CASE("control link: a coordinator that lives is heard and one that stands still is told") {
    Hub hub;
    Message sign;
    sign.envelope.from = kCoordinator;
    sign.body = Status{.activity = "coordinating"};
    hub.server.beat(sign, milliseconds(5));
    std::atomic<int> heard{0};
    std::promise<Nanos> silent;  // cannot be set twice
    auto news = silent.get_future();
    auto client = hub.connect();  // goes first
    (*client)->start({.received =
                          [&](Message&& message) {
                              if (std::holds_alternative<Status>(message.body)) ++heard;
                          },
                      .closed = [](const std::string&) {}});
    (*client)->send(hello_of(node_of(WorkerId{0})));
    (*client)->watch(seconds(2), milliseconds(10),
                     [&](Nanos silence) { silent.set_value(silence); });
    REQUIRE(hub.run_until([&] { return heard > 500; }));  // longer than the limit
    CHECK(news.wait_for(seconds(0)) == std::future_status::timeout);
    // From here on the hub's loop stands still, and its connection stays open.
    REQUIRE(news.wait_for(seconds(10)) == std::future_status::ready);
    CHECK(news.get() > seconds(2));
    client->reset();
}

TEST_CASE("control link: garbage and strangers are closed, and the server goes on") {
    Hub hub;
    for (const std::string& garbage :
         {std::string("GET / HTTP/1.1\r\n\r\n"), std::string("\xff\xff\xff\x7f"),
          std::string("\x08\0\0\0abcdefgh", 12)}) {
        const std::size_t before = hub.warnings.size();
        const RawPeer stranger(hub);
        stranger.say(garbage.data(), garbage.size());
        CHECK(hub.run_until([&] { return hub.warnings.size() > before; }));
    }
    CHECK(hub.got.empty());
    CHECK(hub.connect().has_value());
}

TEST_CASE("control link: nobody there, a stranger there, and another build there are told apart") {
    const auto nobody = ControlClient::connect("127.0.0.1:1", milliseconds(200));
    REQUIRE(nobody.has_error());
    CHECK(nobody.error().code == ErrorCode::timed_out);
    CHECK_THAT(nobody.error().text, Catch::Contains("127.0.0.1:1"));

    Hub other(build_id() + 1);
    const auto built = other.connect();
    REQUIRE(built.has_error());
    CHECK(built.error().code == ErrorCode::wrong_build);
    CHECK_THAT(built.error().text, Catch::Contains("same build"));
    CHECK_THAT(built.error().text, Catch::Contains("on there is of another build") &&
                                       Catch::Contains("detente 0.0.9") &&
                                       Catch::Contains(build_description()) &&
                                       Catch::Contains("this process on " + this_host()));
    CHECK(other.got.empty());
    // A rank tells the coordinator too, so that the job's one failure names both.
    CHECK(other.connect(node_of(WorkerId{1})).has_error());
    REQUIRE(other.run_until([&] { return !other.got.empty(); }));
    const auto& hello = std::get<Hello>(other.got.front().body);
    CHECK(other.got.front().envelope.from == node_of(WorkerId{1}));
    CHECK(hello.build == build_description());
    CHECK(hello.endpoint.host == this_host());

    CHECK(ControlClient::connect("no address", milliseconds(1)).error().code == ErrorCode::bad_job);
}

TEST_CASE("control link: a taken port is named") {
    Hub hub;
    boost::asio::io_context loop;
    ControlServer second(loop, Message{},
                         {.received = [](Message&&) {},
                          .closed = [](NodeId, const std::string&) {},
                          .warn = [](const std::string&) {}});
    const auto bound = second.listen("127.0.0.1", hub.server.port());
    REQUIRE(bound.has_error());
    CHECK(bound.error().code == ErrorCode::io);
    CHECK_THAT(bound.error().text, Catch::Contains(std::to_string(hub.server.port())));
}

}  // namespace
}  // namespace detente
