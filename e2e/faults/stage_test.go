package faults

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/e2e/origins"
)

// A stage has what each test of faults has: an origin, a crowd, and a clock.
type stage struct {
	t           *testing.T
	began       time.Time
	store       *origins.Numbered
	origin      *origin
	crowd       *crowd
	longestExit time.Duration
}

var errSlowExit = errors.New("stopping Caddy: it takes too long to exit")

// seeded is what decides: the flag, or the time.
func seeded() uint64 {
	if *seed != 0 {
		return *seed
	}
	return uint64(time.Now().UnixNano())
}

// gather lets the crowd come, and starts the clock.
func (s *stage) gather(plain, secure string, topics []string) {
	s.began = time.Now()
	s.crowd = newCrowd(s.t, *clients, s.store, plain, secure, topics)
}

// say prints a line with the clock of the schedule.
func (s *stage) say(format string, args ...any) {
	s.t.Logf("%7.2fs  %s", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// live lets the faults of a schedule happen. A fault that takes longer than planned makes
// those after it that take hold of the same part wait.
func (s *stage) live(schedule []fault, happen func(*fault) error) {
	busy := make(map[part]*sync.Mutex)
	for i := range schedule {
		busy[schedule[i].kind.part] = new(sync.Mutex)
	}
	var happening sync.WaitGroup
	for i := range schedule {
		f := &schedule[i]
		select {
		case <-time.After(time.Until(s.began.Add(f.at))):
		case <-s.t.Context().Done():
		}
		if s.t.Failed() {
			break
		}
		happening.Go(func() {
			busy[f.kind.part].Lock()
			defer busy[f.kind.part].Unlock()
			s.say("%s", f)
			if err := happen(f); err != nil {
				s.t.Errorf("%s: %v", f, err)
			}
		})
	}
	happening.Wait()
	s.say("no more faults")
}

// settle waits until every client has caught up.
func (s *stage) settle() {
	target := s.store.Newest(time.Now())
	for !origins.Dispatched(target) {
		target++
	}
	s.crowd.setOut()
	deadline := time.Now().Add(time.Minute)
	for s.crowd.behind(target) > 0 && time.Now().Before(deadline) && len(s.crowd.failed()) == 0 {
		time.Sleep(50 * time.Millisecond)
	}
	s.say("%d of %d clients are behind event %d", s.crowd.behind(target), *clients, target)
	for _, m := range s.crowd.members {
		if m.isBehind(target) {
			s.t.Errorf("%s is behind %d: %s", m.name, target, m.place())
		}
	}
}

// judge says what was found, and stops the crowd.
func (s *stage) judge() (sum tally) {
	s.crowd.leave()
	opened := 0
	for _, m := range s.crowd.members {
		found, wronged, story := m.report()
		sum.add(found)
		opened += m.source.Opened()
		switch {
		case wronged:
			s.t.Errorf("%s: %s", m.name, story)
		case story != "":
			s.t.Logf("%s: %s", m.name, story)
		}
	}
	s.say("%d clients, %d connections: %s", len(s.crowd.members), opened, sum)
	return sum
}

// margin is what Caddy may have more than before the first client. Its own
// upkeep comes and goes: storage that is cleaned, an administrator's idle
// connection, a certificate that is looked at.
var margin = footprint{goroutines: 4, files: 4, heap: 16 << 10}

// mostResident is for all that had to be held at the worst of times, in KiB: Go
// gives memory back slowly.
const mostResident = 400 << 10

// levelOff checks that Caddy lets go of everything when all have left.
func (s *stage) levelOff(c *caddy, before footprint) {
	left := time.Now()
	// Topics linger, and connections to the origin stay idle for a while.
	deadline := left.Add(time.Minute)
	allowed := footprint{before.goroutines + margin.goroutines, before.files + margin.files, mostResident, before.heap + margin.heap}
	for {
		after, err := c.footprint()
		if err != nil {
			s.t.Fatal(err)
		}
		if after.within(allowed) {
			s.say("%s %.1f s after all have left: %s", c.title, time.Since(left).Seconds(), after)
			return
		}
		if time.Now().After(deadline) {
			s.t.Errorf("%s holds on to something: %s; allowed are %s", c.title, after, allowed)
			c.keepStacks(s.t)
			return
		}
		time.Sleep(250 * time.Millisecond)
	}
}
