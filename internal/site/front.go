package site

import (
	"sync"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/keymemory"
	"github.com/sse-fanout/caddy-sse-fanout/internal/pass"
	"github.com/sse-fanout/caddy-sse-fanout/internal/survey"
)

const (
	// FrontMemory is how long a key passes whose stranger was not led to the
	// handler, and how long a handler asks nothing after FrontFailures of them.
	FrontMemory = time.Minute

	// FrontFailures is after how many keys in a row a handler asks nothing for a
	// while, so that a ban or a rate limit on the stranger costs little.
	FrontFailures = 3
)

// A Front is what a handler of the wrapping form has learned of what stands in front of it:
// whether strangers are led to it. The zero value is ready to use.
type Front struct {
	survey sync.Once
	around *survey.Surroundings

	mu sync.Mutex

	// Guarded by mu.
	failures int       // keys whose stranger was not led here since one last was
	arrived  time.Time // when one last was
	until    time.Time // nothing is asked before
	never    bool      // something around it keeps it from sharing at all
}

// Surroundings returns what stands around the handler behind a door. It looks once, and calls
// never if the handler can share nothing because of it.
func (f *Front) Surroundings(door Door, never func(why string)) *survey.Surroundings {
	f.survey.Do(func() {
		f.around = door.Surroundings()
		if f.around.Never != "" {
			f.mu.Lock()
			f.never = true
			f.mu.Unlock()
			never(f.around.Never)
		}
	})
	return f.around
}

// Reached says that a stranger has reached the handler.
func (f *Front) Reached() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failures, f.arrived, f.until = 0, time.Now(), time.Time{}
}

// Failed says that the stranger of a key was not led to the handler, and makes the requests
// for the key pass for a while. It reports false if another client of the key has said so. A
// handler that strangers have reached just before goes on asking for other keys.
func (f *Front) Failed(passing *keymemory.Memory[pass.Reason], key string) bool {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	if passing.Recall(key) != "" {
		return false
	}
	passing.Remember(key, pass.Front, FrontMemory)
	f.failures++
	if f.failures >= FrontFailures && now.Sub(f.arrived) >= FrontMemory {
		f.until = now.Add(FrontMemory)
	}
	return true
}

// AsksNothing reports whether the handler asks the site for no new topic now.
func (f *Front) AsksNothing() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Now().Before(f.until)
}

// IsShutOff reports whether the handler shares nothing because of what surrounds it, as far
// as is known.
func (f *Front) IsShutOff() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.never || f.failures > 0
}
