#include "worker/collectives/meeting.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <span>
#include <utility>

#include "common/checksum.h"

namespace detente {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kMagic = 0x0001'706f'6f72'6744;
constexpr int kMostStrangers = 16;
// A member that has reached the first one waits so much longer than its deadline, so that all end
// with the first one's word on who is missing, and it does not miss those who gave up before it.
constexpr std::chrono::milliseconds kGrace{500};

// What a member says when it comes, in one packet.
struct Hello {
    std::uint64_t magic = kMagic;
    std::uint64_t epoch = 0;
    std::uint64_t members = 0;  // checksum of the list
    std::uint64_t memory_bytes = 0;
    std::uint64_t index = 0;
};
// The answers: so far these are missing; they did not come in time; you ask for another group; or
// welcome, with descriptors.
enum class Answer : std::uint64_t { waiting, gave_up, refused, welcome };
struct Welcome {
    std::uint64_t magic = kMagic;
    Answer answer = Answer::waiting;
    std::uint64_t missing = 0;
};

Error system_error(const std::string& doing) {
    return fail(ErrorCode::io, doing + " failed: " + std::strerror(errno));
}

std::string hex(std::uint64_t value) {
    char text[17];
    std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
    return text;
}

std::uint64_t checksum_of_list(const std::vector<WorkerId>& members) {
    return checksum_of(std::as_bytes(std::span(members)));
}

struct Address {
    sockaddr_un where{};
    socklen_t size = 0;
    std::string text;
};
Address address_of(const std::string& run, const Group& group) {
    Address address;
    address.text = "detente-group-" + hex(checksum_of(std::as_bytes(std::span(run)))) + "-" +
                   std::to_string(group.members.front().value) + "-" +
                   std::to_string(group.epoch.value);
    address.where.sun_family = AF_UNIX;
    std::memcpy(address.where.sun_path + 1, address.text.data(), address.text.size());
    address.size =
        static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + address.text.size());
    return address;
}

bool is_of_this_user(int socket) {
    ucred peer{};
    socklen_t size = sizeof peer;
    return ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
           peer.uid == ::geteuid();
}

int left_ms(Clock::time_point until) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count();
    return static_cast<int>(std::clamp<long long>(left + 1, 0, 60'000));
}

Error missed(const Group& group, std::uint64_t missing, const Address& address) {
    return fail(ErrorCode::timed_out,
                group.names_of(missing) + " did not come to form the group of epoch " +
                    std::to_string(group.epoch.value) + " before the deadline (met at @" +
                    address.text + "; all members must run on this host, as the same user)");
}

Error other_group(const Group& group) {
    return fail(ErrorCode::wrong_epoch,
                "members ask for different groups of epoch " + std::to_string(group.epoch.value) +
                    ": other members, or another size of the shared memory; all must be given the "
                    "same");
}

bool send_with(int socket, const Welcome& welcome, const std::vector<int>& descriptors) {
    iovec piece{const_cast<Welcome*>(&welcome), sizeof welcome};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    std::vector<char> control(CMSG_SPACE(sizeof(int) * descriptors.size()));
    if (!descriptors.empty()) {
        message.msg_control = control.data();
        message.msg_controllen = control.size();
        cmsghdr* header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int) * descriptors.size());
        std::memcpy(CMSG_DATA(header), descriptors.data(), sizeof(int) * descriptors.size());
    }
    return ::sendmsg(socket, &message, MSG_NOSIGNAL) == static_cast<ssize_t>(sizeof welcome);
}

// 0: nothing yet; -1: the peer is gone; else the bytes of the packet.
ssize_t receive_with(int socket, Welcome& welcome, std::vector<Descriptor>& descriptors) {
    iovec piece{&welcome, sizeof welcome};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    std::vector<char> control(CMSG_SPACE(sizeof(int) * (kMostGroupMembers + 1)));
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t got = ::recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (got <= 0) return -1;
    for (cmsghdr* header = CMSG_FIRSTHDR(&message); header;
         header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
        for (std::size_t at = 0; at < header->cmsg_len - CMSG_LEN(0); at += sizeof(int)) {
            int descriptor = -1;
            std::memcpy(&descriptor, CMSG_DATA(header) + at, sizeof descriptor);
            descriptors.emplace_back(descriptor);
        }
    }
    return got;
}

// The first member's half of a meeting.
class Host {
  public:
    Host(const Group& group, Address address, std::size_t memory_bytes, Clock::time_point until)
        : group_(group), address_(std::move(address)), memory_bytes_(memory_bytes), until_(until) {
        peers_.resize(group.members.size());
    }

    Result<Meeting> run() {
        listener_ = Descriptor(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        if (!listener_.is_open()) return system_error("making a socket");
        if (auto bound = listen(); bound.has_error()) return bound.error();
        while (missing() != 0) {
            if (Clock::now() >= until_) {
                tell_missing(Answer::gave_up);
                return missed(group_, missing(), address_);
            }
            if (auto heard = hear(); heard.has_error()) return heard.error();
        }
        return welcome_all();
    }

  private:
    std::uint64_t missing() const {
        std::uint64_t mask = 0;
        for (std::size_t i = 1; i < peers_.size(); ++i) {
            if (!peers_[i].is_open()) mask |= std::uint64_t{1} << i;
        }
        return mask;
    }

    // So that whoever's deadline passes first can name them.
    void tell_missing(Answer answer) const {
        for (std::size_t i = 1; i < peers_.size(); ++i) {
            if (peers_[i].is_open()) send_with(peers_[i].get(), {kMagic, answer, missing()}, {});
        }
    }

    Result<void> listen() {
        const auto* where = reinterpret_cast<const sockaddr*>(&address_.where);
        while (::bind(listener_.get(), where, address_.size) != 0) {
            if (errno != EADDRINUSE) return system_error("binding @" + address_.text);
            if (Clock::now() >= until_) {
                return fail(ErrorCode::wrong_epoch,
                            "another process holds the meeting place @" + address_.text +
                                "; does the same job run twice on this host under one name?");
            }
            ::poll(nullptr, 0, 2);
        }
        if (::listen(listener_.get(), static_cast<int>(kMostGroupMembers)) != 0) {
            return system_error("listening at @" + address_.text);
        }
        return {};
    }

    // Waits for somebody to come, speak, or leave, and sees to it.
    Result<void> hear() {
        std::vector<pollfd> waits{{listener_.get(), POLLIN, 0}};
        for (const auto& guest : guests_) waits.push_back({guest.get(), POLLIN, 0});
        for (const auto& peer : peers_) waits.push_back({peer.get(), 0, 0});
        if (::poll(waits.data(), waits.size(), left_ms(until_)) < 0 && errno != EINTR) {
            return system_error("waiting for members");
        }
        const std::size_t first_peer = 1 + guests_.size();
        for (std::size_t i = 0; i < peers_.size(); ++i) {
            // It may come again, as its next incarnation.
            if ((waits[first_peer + i].revents & (POLLHUP | POLLERR)) != 0)
                peers_[i] = Descriptor();
        }
        for (std::size_t i = guests_.size(); i-- > 0;) {
            if (waits[1 + i].revents == 0) continue;
            Descriptor guest = std::move(guests_[i]);
            guests_.erase(guests_.begin() + static_cast<std::ptrdiff_t>(i));
            if (auto seated = seat(std::move(guest)); seated.has_error()) return seated;
        }
        if (waits[0].revents != 0) {
            Descriptor guest(
                ::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
            const bool room = guests_.size() < kMostGroupMembers + kMostStrangers;
            if (guest.is_open() && room && is_of_this_user(guest.get())) {
                guests_.push_back(std::move(guest));
            }
        }
        return {};
    }

    // A guest has spoken. Who speaks another language is turned away; who asks for another group
    // under this name ends the meeting, since one of the two was told wrong.
    Result<void> seat(Descriptor guest) {
        Hello hello;
        const ssize_t got = ::recv(guest.get(), &hello, sizeof hello, MSG_DONTWAIT);
        if (got != static_cast<ssize_t>(sizeof hello) || hello.magic != kMagic) return {};
        const bool fits = hello.epoch == group_.epoch.value &&
                          hello.members == checksum_of_list(group_.members) &&
                          hello.memory_bytes == memory_bytes_ && hello.index > 0 &&
                          hello.index < peers_.size() && !peers_[hello.index].is_open();
        if (!fits) {
            send_with(guest.get(), {kMagic, Answer::refused, 0}, {});
            return other_group(group_);
        }
        peers_[hello.index] = std::move(guest);
        tell_missing(Answer::waiting);
        return {};
    }

    Result<Meeting> welcome_all() {
        Meeting meeting;
        meeting.memory_bytes = memory_bytes_;
        meeting.memory = Descriptor(::memfd_create("detente-group", MFD_CLOEXEC));
        if (!meeting.memory.is_open()) return system_error("making shared memory");
        if (::ftruncate(meeting.memory.get(), static_cast<off_t>(memory_bytes_)) != 0) {
            return system_error("making shared memory of " + std::to_string(memory_bytes_) +
                                " bytes");
        }
        std::vector<int> descriptors{meeting.memory.get()};
        for (std::size_t i = 0; i < peers_.size(); ++i) {
            meeting.wakeups.emplace_back(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
            if (!meeting.wakeups.back().is_open()) return system_error("making an eventfd");
            descriptors.push_back(meeting.wakeups.back().get());
        }
        // One that is gone by now hangs up, which breaks the group as soon as it is formed.
        const Welcome welcome{kMagic, Answer::welcome, 0};
        for (std::size_t i = 1; i < peers_.size(); ++i) {
            send_with(peers_[i].get(), welcome, descriptors);
        }
        meeting.peers = std::move(peers_);
        return meeting;
    }

    const Group& group_;
    Address address_;
    std::size_t memory_bytes_;
    Clock::time_point until_;
    Descriptor listener_;
    std::vector<Descriptor> guests_;  // have not spoken yet
    std::vector<Descriptor> peers_;
};

// A connected socket, or a closed one if nobody listens there (yet).
Result<Descriptor> try_to_reach(const Address& address) {
    Descriptor socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    if (!socket.is_open()) return system_error("making a socket");
    const auto* where = reinterpret_cast<const sockaddr*>(&address.where);
    if (::connect(socket.get(), where, address.size) == 0 && is_of_this_user(socket.get())) {
        return socket;
    }
    return Descriptor();
}

// The other members' half.
class Guest {
  public:
    Guest(const Group& group, std::size_t index, Address address, std::size_t memory_bytes,
          Clock::time_point until)
        : group_(group),
          hello_{kMagic, group.epoch.value, checksum_of_list(group.members), memory_bytes, index},
          address_(std::move(address)),
          until_(until) {}

    Result<Meeting> run() {
        for (;;) {
            auto reached = try_to_reach(address_);
            if (reached.has_error()) return reached.error();
            if (reached->is_open() && ::send(reached->get(), &hello_, sizeof hello_,
                                             MSG_NOSIGNAL) == static_cast<ssize_t>(sizeof hello_)) {
                auto answered = listen(*reached);
                if (answered.has_error()) return answered.error();
                if (*answered) return take_seat(std::move(*reached));
            }
            if (Clock::now() >= until_) return missed(group_, missing_, address_);
            ::poll(nullptr, 0, 2);  // the first member may come a little later, or come again
        }
    }

  private:
    // Whether a welcome has come; not if the first member hung up or the deadline has passed.
    Result<bool> listen(const Descriptor& socket) {
        while (Clock::now() < until_ + kGrace) {
            pollfd wait{socket.get(), POLLIN, 0};
            ::poll(&wait, 1, left_ms(until_ + kGrace));
            Welcome answer;
            const ssize_t got = receive_with(socket.get(), answer, descriptors_);
            if (got == 0) continue;
            if (got != static_cast<ssize_t>(sizeof answer) || answer.magic != kMagic) {
                missing_ = 1;
                return false;
            }
            if (answer.answer == Answer::refused) return other_group(group_);
            if (answer.answer == Answer::welcome) return true;
            missing_ = answer.missing;
            if (answer.answer == Answer::gave_up) return missed(group_, missing_, address_);
        }
        return false;
    }

    Result<Meeting> take_seat(Descriptor socket) {
        if (descriptors_.size() != group_.members.size() + 1) {
            return fail(ErrorCode::io,
                        "the first member's descriptors did not arrive; raise ulimit -n");
        }
        Meeting meeting;
        meeting.memory_bytes = hello_.memory_bytes;
        meeting.memory = std::move(descriptors_.front());
        for (std::size_t i = 1; i < descriptors_.size(); ++i) {
            meeting.wakeups.push_back(std::move(descriptors_[i]));
        }
        meeting.peers.resize(group_.members.size());
        meeting.peers[0] = std::move(socket);
        return meeting;
    }

    const Group& group_;
    const Hello hello_;
    Address address_;
    Clock::time_point until_;
    std::vector<Descriptor> descriptors_;
    std::uint64_t missing_ = 1;  // as the first member last said; until then itself
};

}  // namespace

Descriptor::~Descriptor() {
    if (number_ >= 0) ::close(number_);
}

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
}

Result<Meeting> meet(const std::string& run, const Group& group, WorkerId self,
                     std::size_t memory_bytes, Nanos deadline) {
    const Clock::time_point until = Clock::now() + deadline;
    Address address = address_of(run, group);
    const std::size_t index = group.index_of(self);
    if (index > 0) return Guest(group, index, std::move(address), memory_bytes, until).run();
    return Host(group, std::move(address), memory_bytes, until).run();
}

}  // namespace detente
