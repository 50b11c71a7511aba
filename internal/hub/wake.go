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
func (t *Topic) Wake() {
	var wake chan struct{}
	if t.pace.waiting.Load() > 0 {
		now := t.now()
		t.mu.Lock()
		wake = t.takeWake(now)
		t.mu.Unlock()
	}
	t.release(wake)
}

// Beat counts a heartbeat and wakes the readers. One timer for a topic serves
// all of its readers: each compares Batch.Beat with the last it saw.
func (t *Topic) Beat() {
	now := t.now()
	t.mu.Lock()
	t.beat++
	wake := t.takeWake(now)
	t.mu.Unlock()
	t.release(wake)
}

// Listen makes call be called at each Publish, Wake and Beat from now on, until
// stop is called, which does not wait for a call under way. It is for whoever
// reads for many: call must not block, nor take long.
func (t *Topic) Listen(call func()) (stop func()) {
	l := &listener{call}
	t.mu.Lock()
	defer t.mu.Unlock()
	all := []*listener{l}
	if before := t.listeners.Load(); before != nil {
		all = append(all, *before...)
	}
	t.listeners.Store(&all)
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		rest := slices.DeleteFunc(slices.Clone(*t.listeners.Load()), func(other *listener) bool { return other == l })
		t.listeners.Store(&rest)
	}
}

// Watch returns a channel that is closed at the next Publish, Wake or Beat, and
// the heartbeats so far. It is for readers that have no cursor yet; had is as for
// Read.
func (t *Topic) Watch(had <-chan struct{}) (wake <-chan struct{}, beat uint64) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.wait(had), t.beat
}

// wait returns the channel to wait on. t.mu must be held, for the reader must be
// counted under the same lock that showed that there is nothing to take, and once: a
// crowd of more than there are would be waited for in vain.
func (t *Topic) wait(had <-chan struct{}) <-chan struct{} {
	if had != t.wake && t.pace.wait() {
		t.lapEnds()
	}
	return t.wake
}

// Unwait is called by a reader that does not wait on the channel any more that it got last, but
// reads on in another way: who are woken as a crowd are waited for.
func (t *Topic) Unwait(had <-chan struct{}) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if had == t.wake {
		t.pace.waiting.Add(-1)
	}
}

// takeWake returns the channel that readers wait on, and leaves a new one in its
// place. It returns nil if none waits, so that a topic without readers makes no
// channels, or if they are to be woken later. t.mu must be held for writing.
func (t *Topic) takeWake(now time.Duration) chan struct{} {
	n := t.pace.waiting.Load()
	if n == 0 {
		return nil
	}
	if left := t.pace.left(now); left > 0 {
		t.wakeIn(left)
		return nil
	}
	return t.renewWake(n, now)
}

// renewWake is takeWake for n readers. t.mu must be held for writing.
func (t *Topic) renewWake(n int64, now time.Duration) chan struct{} {
	t.pace.wake(n, now)
	wake := t.wake
	t.wake = make(chan struct{})
	return wake
}

// release is called without the lock: closing the channel makes each waiting
// goroutine runnable, which takes a while when there are many.
func (t *Topic) release(wake chan struct{}) {
	if wake != nil {
		close(wake)
	}
	if listeners := t.listeners.Load(); listeners != nil {
		for _, l := range *listeners {
			l.call()
		}
	}
}
