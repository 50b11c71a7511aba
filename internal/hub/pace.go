package hub

import (
	"sync/atomic"
	"time"
)

const (
	// crowd is how many readers it takes for them to be woken at a pace.
	crowd = 32

	// shortLap is how long readers may take for what they were woken for
	// without a rest before they are woken again.
	shortLap = 2 * time.Millisecond

	// maxPause is how long after they were woken readers are woken next, at the
	// latest, and so the longest that anything waits for them to be.
	maxPause = 80 * time.Millisecond
)

// A pace spaces the wake-ups of readers that are many, as network cards space
// their interrupts: to wake a reader and to have it write costs about the same
// however much there is to take. Readers are not woken again before most of them
// have come back from the last time, and then not for twice as long as that has
// taken. So they are at work for a third of the time, and take several entries at
// once. What comes after a quiet time waits for nothing.
type pace struct {
	// Written under Log.mu, read under its read lock.
	woken   time.Duration // when readers were woken last
	most    int64         // of these: all but a few, who are slow or gone; 0 if they are no crowd
	pending bool          // they are to be woken when the timer fires
	timer   *time.Timer

	// Changed under the read lock.
	waiting atomic.Int64 // readers that wait on the channel
	lap     atomic.Int64 // the time until most had come back; 0 if they have not
}

// wait counts a reader that is about to wait, and reports whether with it most
// have come back.
func (p *pace) wait() (most bool) {
	return p.waiting.Add(1) == p.most
}

// left is how long the next wake-up must wait, at a time.
func (p *pace) left(now time.Duration) time.Duration {
	lap, since := time.Duration(p.lap.Load()), now-p.woken
	switch {
	case p.most == 0, lap > 0 && lap < shortLap:
		return 0
	case lap == 0:
		return maxPause - since
	}
	return min(3*lap, maxPause) - since
}

// wake begins to measure how long n readers take, which are woken now.
func (p *pace) wake(n int64, now time.Duration) {
	p.woken, p.pending, p.most = now, false, 0
	if n >= crowd {
		p.most = n - n/8
	}
	p.waiting.Store(0)
	p.lap.Store(0)
}

// wakeIn makes readers be woken after some time. l.mu must be held for writing.
func (l *Log) wakeIn(d time.Duration) {
	switch {
	case l.pace.pending:
		return
	case l.pace.timer == nil:
		l.pace.timer = time.AfterFunc(d, l.wakeHeld)
	default:
		l.pace.timer.Reset(d)
	}
	l.pace.pending = true
}

// wakeHeld wakes the readers whose time has come.
func (l *Log) wakeHeld() {
	now := l.now()
	l.mu.Lock()
	var wake chan struct{}
	if n := l.pace.waiting.Load(); l.pace.pending && n > 0 {
		wake = l.renewWake(n, now)
	}
	l.pace.pending = false
	l.mu.Unlock()
	if wake != nil {
		close(wake)
	}
}

// lapEnds is called when most of the readers woken last have come back. l.mu must
// be held.
func (l *Log) lapEnds() {
	now := l.now()
	l.pace.lap.Store(int64(max(1, now-l.pace.woken)))
	if l.pace.pending {
		l.pace.timer.Reset(l.pace.left(now))
	}
}
