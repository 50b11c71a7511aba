package relay

import (
	"testing"
	"testing/synctest"
	"time"
)

// An observer is told of impossible changes of state when no lock is held, and the relay does
// not retire before it has been.
func TestMisfitsAreTold(t *testing.T) {
	panics := onMisfit
	onMisfit = nil
	defer func() { onMisfit = panics }()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, testConfig())
		b.observer.misfits = make(chan sighted)
		r := b.join("192.0.2.1", "")
		b.next().accept()
		b.begin(r)

		topic := r.topic
		b.mu.Lock()
		topic.mu.Lock()
		for range 3 {
			topic.linkOn(linkRefuses)
		}
		topic.standingOn(standingCloses)
		topic.mu.Unlock()
		b.mu.Unlock()
		if !topic.IsConnected() || !topic.standing.is(standingUsed) {
			t.Errorf("the topic is %s and %s", topic.link.now(), topic.standing.now())
		}

		r.Close()
		b.End(Ending{Reason: EndExiting})
		time.Sleep(time.Hour)
		told := make(map[Misfit]uint64)
		for all := uint64(0); all < 4; {
			if b.observer.retired.Load() {
				t.Error("the relay has retired while the observer is being told")
			}
			seen := <-b.observer.misfits
			told[seen.misfit] += seen.times
			all += seen.times
			if seen.topic != topic {
				t.Errorf("told of %v for %q", seen.misfit, seen.topic.Name())
			}
		}
		link, standing := Misfit{"link", "connected", "refuses"}, Misfit{"standing", "used", "closes"}
		if told[link] != 3 || told[standing] != 1 || len(told) != 2 {
			t.Errorf("told of %v", told)
		}
		if synctest.Wait(); !b.observer.retired.Load() {
			t.Error("the relay has not retired")
		}
		if left := b.Holdings().Misfits; len(left) != 1 || left[0] != link.String() {
			t.Errorf("Holdings has %q, want the first", left)
		}
	})
}
