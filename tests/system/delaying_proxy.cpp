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
    // `limit`: none where it is not to be cut.
    Direction(Socket from, Socket to, std::chrono::milliseconds delay,
              std::atomic<std::uint64_t>& passed, DelayingProxy::Limit* limit)
        : from_(std::move(from)),
          to_(std::move(to)),
          delay_(delay),
          passed_(passed),
          limit_(limit),
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
            const bool cut = self->reaches_limit(self->later_.front().bytes);
            asio::async_write(*self->to_, asio::buffer(self->later_.front().bytes),
                              [self, cut](const ErrorOfAsio& error, std::size_t bytes) {
                                  self->passed_ += bytes;
                                  self->later_.pop_front();
                                  if (cut) return self->cut();
                                  if (!error) self->write();
                              });
        });
    }

    // Then only what may still pass is left of them.
    bool reaches_limit(std::vector<char>& bytes) {
        if (limit_ == nullptr) return false;
        const bool reached = limit_->left_bytes < bytes.size();
        if (reached) bytes.resize(std::exchange(limit_->left_bytes, DelayingProxy::kNoLimit));
        limit_->left_bytes -= reached ? 0 : bytes.size();
        return reached;
    }
    void cut() {
        ErrorOfAsio ignored;
        from_->close(ignored);
        to_->close(ignored);
        ++limit_->cuts;
    }

    Socket from_;
    Socket to_;
    std::chrono::milliseconds delay_;
    std::atomic<std::uint64_t>& passed_;
    DelayingProxy::Limit* limit_;
    asio::steady_timer timer_;
    std::array<char, 65536> buffer_{};
    std::deque<Piece> later_;
    bool writing_ = false;
};

}  // namespace

DelayingProxy::DelayingProxy(const std::string& outside, const std::string& inside,
                             const std::vector<std::uint16_t>& ports,
                             std::chrono::milliseconds delay, std::optional<CutOnce> cut)
    : inside_(inside), delay_(delay), cut_(cut) {
    if (cut_) limit_.left_bytes = cut_->after_bytes;
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
            inner->async_connect(there, [this, which, outer, inner](const ErrorOfAsio& refused) {
                if (refused) return;
                Limit* limit = cut_ && cut_->which == which ? &limit_ : nullptr;
                Limit* out = limit != nullptr && cut_->from_inside ? limit : nullptr;
                Limit* in = out == nullptr ? limit : nullptr;
                std::make_shared<Direction>(outer, inner, delay_, passed_bytes_, in)->start();
                std::make_shared<Direction>(inner, outer, delay_, passed_bytes_, out)->start();
            });
            accept(which);
        });
}

}  // namespace detente::test
