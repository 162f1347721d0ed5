// One end of a control connection: messages over a TCP byte stream (common/codec, stream form).
//
// Thread: everything, callbacks included, runs on the io_context's one thread.
// Invariants: messages leave in the order of send(); `closed` is called exactly once, with a
// reason, unless the owner closed it; no callback follows. What waits to be written is bounded: a
// peer that does not read is closed. Whatever the other end said before it left is received, also
// where writing to it has failed already.
#pragma once

#include <array>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/messages.h"
#include "common/result.h"

namespace detente {

inline constexpr std::size_t kMostQueuedControlBytes = 64U << 20U;
inline constexpr std::chrono::seconds kLastWordDeadline{2};
// In the coordinator's sign of life, which is a Status: the number of its process.
inline constexpr std::string_view kProcessValue = "process";

class ControlConnection : public std::enable_shared_from_this<ControlConnection> {
  public:
    struct Callbacks {
        std::function<void(Message&&)> received;
        std::function<void(const std::string& reason)> closed;
    };
    explicit ControlConnection(boost::asio::ip::tcp::socket socket);

    void start(Callbacks callbacks);
    void send(const Message& message);
    // No callback follows. What was sent before is lost where it still waits to be written.
    void close();
    // No callback follows, and no more is sent. Closes when what was sent before is written, or
    // after kLastWordDeadline.
    void close_after_last_word();
    // No more is sent, and what comes is thrown away. When what was sent before is written, the
    // other end is told; once it has closed too, `gone` is called. Closing at once would lose what
    // the network has not delivered yet, if the other end sends meanwhile.
    void leave(std::function<void()> gone);
    std::size_t queued_bytes() const { return queued_bytes_; }
    std::string peer() const { return peer_; }

  private:
    void read_length();
    void read_rest(std::size_t total);
    void write_next();
    void all_written();
    void closed(const std::string& reason);

    boost::asio::ip::tcp::socket socket_;
    std::string peer_;
    Callbacks callbacks_;
    std::vector<std::byte> incoming_;
    std::deque<std::vector<std::byte>> outgoing_;
    std::size_t queued_bytes_ = 0;
    // Goes forward only.
    enum class State {
        open,
        leaving,  // when what waits is written the other end is told; reads until that closes too
        ending,   // when what waits is written it closes; nothing is received any more
        closed
    };
    State state_ = State::open;
    boost::asio::steady_timer last_word_timer_;
};

struct HostPort {
    std::string host;
    std::uint16_t port = 0;
};
// "host:port". bad_job if it is not, or if the host is an IPv6 address: shards listen on IPv4 only.
Result<HostPort> parse_address(const std::string& address);

}  // namespace detente
