#include "tests/system/delaying_proxy.h"

#include <array>
#include <boost/asio/connect.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <deque>
#include <utility>

namespace detente::test {

namespace asio = boost::asio;
using ErrorOfAsio = boost::system::error_code;
using Socket = std::shared_ptr<asio::ip::tcp::socket>;
using Clock = std::chrono::steady_clock;

namespace {

// One direction of one connection: read at once, written when it is due, in order.
class Direction : public std::enable_shared_from_this<Direction> {
  public:
    Direction(Socket from, Socket to, std::chrono::milliseconds delay,
              std::atomic<std::uint64_t>& passed)
        : from_(std::move(from)),
          to_(std::move(to)),
          delay_(delay),
          passed_(passed),
          timer_(from_->get_executor()) {}

    void start() {
        const auto self = shared_from_this();
        from_->async_read_some(
            asio::buffer(buffer_), [self](const ErrorOfAsio& error, std::size_t bytes) {
                // An end travels as late as what was sent before it.
                self->later_.push_back({Clock::now() + self->delay_,
                                        {self->buffer_.begin(), self->buffer_.begin() + bytes}});
                if (!self->writing_) self->write();
                if (!error) self->start();
            });
    }

  private:
    struct Piece {
        Clock::time_point due;
        std::vector<char> bytes;  // empty = the end
    };

    void write() {
        writing_ = !later_.empty();
        if (!writing_) return;
        const auto self = shared_from_this();
        timer_.expires_at(later_.front().due);
        timer_.async_wait([self](const ErrorOfAsio& cancelled) {
            if (cancelled) return;
            if (self->later_.front().bytes.empty()) {
                ErrorOfAsio ignored;
                self->to_->shutdown(asio::socket_base::shutdown_send, ignored);
                return;
            }
            asio::async_write(*self->to_, asio::buffer(self->later_.front().bytes),
                              [self](const ErrorOfAsio& error, std::size_t bytes) {
                                  self->passed_ += bytes;
                                  self->later_.pop_front();
                                  if (!error) self->write();
                              });
        });
    }

    Socket from_;
    Socket to_;
    std::chrono::milliseconds delay_;
    std::atomic<std::uint64_t>& passed_;
    asio::steady_timer timer_;
    std::array<char, 65536> buffer_{};
    std::deque<Piece> later_;
    bool writing_ = false;
};

}  // namespace

DelayingProxy::DelayingProxy(const std::string& outside, const std::string& inside,
                             const std::vector<std::uint16_t>& ports,
                             std::chrono::milliseconds delay)
    : inside_(inside), delay_(delay) {
    for (const std::uint16_t port : ports) {
        acceptors_.emplace_back(loop_,
                                asio::ip::tcp::endpoint(asio::ip::make_address(outside), port));
    }
    for (std::size_t i = 0; i < acceptors_.size(); ++i) accept(i);
    thread_ = std::thread([this] { loop_.run(); });
}

DelayingProxy::~DelayingProxy() {
    loop_.stop();
    thread_.join();
}

void DelayingProxy::accept(std::size_t which) {
    acceptors_[which].async_accept(
        [this, which](const ErrorOfAsio& error, asio::ip::tcp::socket came) {
            if (error) return;
            const auto outer = std::make_shared<asio::ip::tcp::socket>(std::move(came));
            const auto inner = std::make_shared<asio::ip::tcp::socket>(loop_);
            const asio::ip::tcp::endpoint there(asio::ip::make_address(inside_),
                                                acceptors_[which].local_endpoint().port());
            // Nobody listens there yet: the outer connection closes, and is tried again.
            inner->async_connect(there, [this, outer, inner](const ErrorOfAsio& refused) {
                if (refused) return;
                std::make_shared<Direction>(outer, inner, delay_, passed_bytes_)->start();
                std::make_shared<Direction>(inner, outer, delay_, passed_bytes_)->start();
            });
            accept(which);
        });
}

}  // namespace detente::test
