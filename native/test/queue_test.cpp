// The order in which an executor runs the steps of its lanes' jobs. The jobs here compute nothing: each step writes down whose it
// was, and others are submitted from inside a step, so that nothing depends on time. Prints a line per case and "N passed, N
// failed" last.
#include <condition_variable>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../src/cpu/backend.h"
#include "../src/queue.h"
#include "check.h"

namespace warpsight::test {

static void expect_equal(const std::string& got, const std::string& want) {
    if (got != want) throw std::runtime_error("got " + got + ", want " + want);
}

/// One device for all cases: its executor lives as long as the process.
static const std::shared_ptr<Device>& device() {
    static const auto device = std::make_shared<Device>(make_cpu_backend());
    return device;
}

/// What happened, one letter per step, and how many jobs are still to end.
class Log {
public:
    void expect_jobs(int count) {
        std::lock_guard lock(mutex_);
        open_ += count;
    }
    void step(char letter) {
        std::lock_guard lock(mutex_);
        letters_ += letter;
    }
    void finished() {
        std::lock_guard lock(mutex_);
        if (--open_ == 0) done_.notify_all();
    }
    /// Waits for all jobs.
    std::string letters() {
        std::unique_lock lock(mutex_);
        done_.wait(lock, [this] { return open_ == 0; });
        return letters_;
    }

private:
    std::mutex mutex_;
    std::condition_variable done_;
    std::string letters_;
    int open_ = 0;
};

/// What is called inside a job's steps, counted from 0.
using During = std::map<int, std::function<void()>>;

/// So many steps of one letter.
class LetterJob final : public Job {
public:
    LetterJob(Log& log, char letter, int steps, During during = {})
        : log_(log), letter_(letter), steps_(steps), during_(std::move(during)) {
        log_.expect_jobs(1);
    }
    bool advance(Lane&) override {
        log_.step(letter_);
        if (auto found = during_.find(next_); found != during_.end()) found->second();
        return ++next_ == steps_;
    }
    void finish() override { log_.finished(); }
    void cancel(const std::shared_ptr<const Failure>&) override { log_.step('!'); }

private:
    Log& log_;
    char letter_;
    int steps_, next_ = 0;
    During during_;
};

/// The lanes of a JavaScript environment.
struct Lanes {
    std::shared_ptr<Lane> interactive = std::make_shared<Lane>(device(), true), bulk = std::make_shared<Lane>(device(), false);
};

static std::unique_ptr<Job> job(Log& log, char letter, int steps, During during = {}) {
    return std::make_unique<LetterJob>(log, letter, steps, std::move(during));
}

static std::string times(int count, const std::string& text) {
    std::string all;
    for (int i = 0; i < count; ++i) all += text;
    return all;
}

/// Images that come each while the one before runs.
static void submit_images(Log& log, Lane& lane, int steps, int count) {
    During next;
    if (count > 1) next[1] = [=, &log, &lane] { submit_images(log, lane, steps, count - 1); };
    lane.submit(job(log, 'i', steps, next));
}

static void order_cases() {
    check("an image that comes in the middle of a batch waits for the step that runs, and for no other", [] {
        Log log;
        Lanes lanes;
        lanes.bulk->submit(job(log, 'b', 50, During{{2, [&] { lanes.interactive->submit(job(log, 'i', 50)); }}}));
        expect_equal(log.letters(), times(3, "b") + times(50, "i") + times(47, "b"));
    });
    check("images that wait for one step of a batch run before the next one", [] {
        Log log;
        Lanes lanes;
        lanes.bulk->submit(job(log, 'b', 6, During{{0, [&] {
                                                        for (int i = 0; i < 4; ++i) lanes.interactive->submit(job(log, 'i', 3));
                                                    }}}));
        expect_equal(log.letters(), "b" + times(4, "iii") + times(5, "b"));
    });
    check("a call of two jobs waits for one step, whenever in it or in the first job the second comes", [] {
        Log log;
        Lanes lanes;
        auto submit = [&](char letter) { lanes.interactive->submit(job(log, letter, 2)); };
        lanes.bulk->submit(job(log, 'b', 4, During{{0, [&] { submit('i'), submit('r'); }}}));
        expect_equal(log.letters(), "biirrbbb");
        // behind a step's end: this call has not waited yet
        lanes.interactive->submit(
            job(log, 'i', 2, During{{0, [&] { submit('r'); }}, {1, [&] { lanes.bulk->submit(job(log, 'b', 2)); }}}));
        expect_equal(log.letters(), "biirrbbbiibrrb");
    });
    check("one step of a batch passes where an image comes while another runs, and none inside an image", [] {
        Log log;
        Lanes lanes;
        auto images = [&] {
            for (int i = 0; i < 2; ++i) lanes.interactive->submit(job(log, 'i', 3));
        };
        lanes.bulk->submit(job(log, 'b', 4, During{{0, [&] {
                                                        lanes.interactive->submit(job(log, 'j', 3, During{{1, images}}));
                                                    }}}));
        expect_equal(log.letters(), "bjjjb" + times(2, "iii") + "bb");
    });
    check("a batch ends while images never cease", [] {
        Log log;
        Lanes lanes;
        lanes.bulk->submit(job(log, 'b', 10, During{{0, [&] { submit_images(log, *lanes.interactive, 3, 20); }}}));
        expect_equal(log.letters(), times(10, "biii") + times(10, "iii"));
    });
    check("images of two environments that waited for one step of a batch run before the next step, each as a whole", [] {
        Log log;
        Lanes one, two;
        one.bulk->submit(job(log, 'b', 4, During{{0, [&] {
                                                      one.interactive->submit(job(log, 'i', 3));
                                                      two.interactive->submit(job(log, 'j', 3));
                                                  }}}));
        expect_equal(log.letters(), "biiijjjbbb");
    });
    check("environments take turns: many images of one let one of another pass", [] {
        Log log;
        Lanes one, two;
        one.bulk->submit(job(log, 'b', 1, During{{0, [&] {
                                                      for (int i = 0; i < 4; ++i) one.interactive->submit(job(log, 'i', 2));
                                                      for (int j = 0; j < 2; ++j) two.interactive->submit(job(log, 'j', 2));
                                                  }}}));
        expect_equal(log.letters(),
                     "b"
                     "ii"
                     "jj"
                     "ii"
                     "jj"
                     "ii"
                     "ii");
    });
    check("batches of two environments take turns step by step, also while images of one never cease", [] {
        Log log;
        Lanes one, two;
        one.bulk->submit(job(log, 'b', 4, During{{0, [&] {
                                                      two.bulk->submit(job(log, 'c', 4));
                                                      submit_images(log, *one.interactive, 2, 4);
                                                  }}}));
        expect_equal(log.letters(),
                     "b"
                     "ii"
                     "c"
                     "ii"
                     "b"
                     "ii"
                     "c"
                     "ii"
                     "bcbc");
    });
    check("what waits for the result of a batch does not stop the batch, nor images of another environment", [] {
        Log log;
        Lanes one, two;
        auto result = std::make_shared<Storage>(one.bulk, DType::float32, Shape{1});
        one.bulk->submit(job(log, 'b', 5,
                             During{{0,
                                     [&] {
                                         auto reader = job(log, 'r', 2);
                                         reader->inputs.push_back(result);
                                         one.interactive->submit(std::move(reader));
                                     }},
                                    {2, [&] { two.interactive->submit(job(log, 'j', 2)); }},
                                    {4, [&] {
                                         result->set_ready();
                                         one.bulk->submit(job(log, 'c', 2));
                                     }}}));
        expect_equal(log.letters(), "bbbjjbbrrcc");
    });
    check("an environment that closes cancels what waits in its lanes, and the others go on", [] {
        Log log;
        Lanes one, two;
        one.bulk->submit(job(log, 'b', 2, During{{0, [&] {
                                                      for (int j = 0; j < 2; ++j) two.interactive->submit(job(log, 'j', 2));
                                                      two.interactive->close();
                                                      two.interactive->submit(job(log, 'j', 2));
                                                  }}}));
        expect_equal(log.letters(), "b!!!b");
    });
}

}  // namespace warpsight::test

int main() {
    using namespace warpsight::test;
    order_cases();
    std::printf("%d passed, %d failed\n", passed, failed);
    return failed ? 1 : 0;
}
