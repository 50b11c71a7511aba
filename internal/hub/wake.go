package hub

import (
	"slices"
	"time"
)

// A listener is called in place of a channel that is closed.
type listener struct{ call func() }

// Wake makes every waiting reader look again. It may be for a reason of the
// caller's own: a reader that looks for it after Read has returned the channel
// to wait on, and before it waits, does not miss it.
func (l *Log) Wake() {
	var wake chan struct{}
	if l.pace.waiting.Load() > 0 {
		now := l.now()
		l.mu.Lock()
		wake = l.takeWake(now)
		l.mu.Unlock()
	}
	l.release(wake)
}

// Beat counts a heartbeat and wakes the readers. One timer for a log serves
// all of its readers: each compares Batch.Beat with the last it saw.
func (l *Log) Beat() {
	now := l.now()
	l.mu.Lock()
	l.beat++
	wake := l.takeWake(now)
	l.mu.Unlock()
	l.release(wake)
}

// Listen makes call be called at each Publish, Wake and Beat from now on, until
// stop is called, which does not wait for a call under way. It is for whoever
// reads for many: call must not block, nor take long.
func (l *Log) Listen(call func()) (stop func()) {
	added := &listener{call}
	l.mu.Lock()
	defer l.mu.Unlock()
	all := []*listener{added}
	if before := l.listeners.Load(); before != nil {
		all = append(all, *before...)
	}
	l.listeners.Store(&all)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		rest := slices.DeleteFunc(slices.Clone(*l.listeners.Load()), func(other *listener) bool { return other == added })
		l.listeners.Store(&rest)
	}
}

// Watch returns a channel that is closed at the next Publish, Wake or Beat, and
// the heartbeats so far. It is for readers that have no cursor yet; had is as for
// Read.
func (l *Log) Watch(had <-chan struct{}) (wake <-chan struct{}, beat uint64) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.wait(had), l.beat
}

// wait returns the channel to wait on. l.mu must be held, for the reader must be
// counted under the same lock that showed that there is nothing to take, and once: a
// crowd of more than there are would be waited for in vain.
func (l *Log) wait(had <-chan struct{}) <-chan struct{} {
	if had != l.wake && l.pace.wait() {
		l.lapEnds()
	}
	return l.wake
}

// Unwait is called by a reader that does not wait on the channel any more that it got last, but
// reads on in another way: who are woken as a crowd are waited for.
func (l *Log) Unwait(had <-chan struct{}) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if had == l.wake {
		l.pace.waiting.Add(-1)
	}
}

// takeWake returns the channel that readers wait on, and leaves a new one in its
// place. It returns nil if none waits, so that a log without readers makes no
// channels, or if they are to be woken later. l.mu must be held for writing.
func (l *Log) takeWake(now time.Duration) chan struct{} {
	n := l.pace.waiting.Load()
	if n == 0 {
		return nil
	}
	if left := l.pace.left(now); left > 0 {
		l.wakeIn(left)
		return nil
	}
	return l.renewWake(n, now)
}

// renewWake is takeWake for n readers. l.mu must be held for writing.
func (l *Log) renewWake(n int64, now time.Duration) chan struct{} {
	l.pace.wake(n, now)
	wake := l.wake
	l.wake = make(chan struct{})
	return wake
}

// release is called without the lock: closing the channel makes each waiting
// goroutine runnable, which takes a while when there are many.
func (l *Log) release(wake chan struct{}) {
	if wake != nil {
		close(wake)
	}
	if listeners := l.listeners.Load(); listeners != nil {
		for _, l := range *listeners {
			l.call()
		}
	}
}
