package relay

import (
	"strconv"
	"testing"
	"testing/synctest"
)

// again ends a call that another is to follow at once.
func (c *call) again() {
	c.end <- Outcome{Again: true}
	synctest.Wait()
}

// TestASourceMayHaveAHistory has a source that brings earlier events before the origin has
// answered: they are for those who resume, and admit nobody.
func TestASourceMayHaveAHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, testConfig())
		r := b.join("192.0.2.1", "2")
		defer r.Close()
		fresh := b.join("192.0.2.1", "")
		defer fresh.Close()
		history := b.next()
		history.events(1, 4)
		if r.topic.IsConnected() {
			t.Error("the origin has not answered")
		}
		history.again()
		live := b.next() // no time has passed
		if live.from.ID != "4" {
			t.Errorf("the source is asked for what follows %q, and has brought 4", live.from.ID)
		}
		live.accept().events(5, 6)
		b.begin(r)
		if text, _ := read(r); text != numbered(3, 6) {
			t.Errorf("the client that resumes with 2 has got:\n%s", text)
		}
		b.begin(fresh)
		if text, _ := read(fresh); text != numbered(5, 6) {
			t.Errorf("the client without an id has got:\n%s", text)
		}
	})
}

// TestAHistoryThatTheOriginHasForgotten has a source that brings earlier events, of which the
// origin has forgotten the newest. What it sends then does not follow on these: readers of the
// history were not told of the gap, and a catch-up that met the first event took what was
// between them for missing.
func TestAHistoryThatTheOriginHasForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, testConfig())
		old, newer := b.join("192.0.2.1", "2"), b.join("192.0.2.1", "6")
		defer old.Close()
		defer newer.Close()
		b.next().events(1, 4).again()
		b.denyID()
		live := b.next()
		if live.from.ID != "" {
			t.Errorf("the source is asked for what follows %q, which was denied", live.from.ID)
		}
		live.accept()
		b.begin(old)
		b.begin(newer)
		fetch := b.next()
		if fetch.from.ID != "6" {
			t.Errorf("the source is asked for what follows %q, and a client has missed what follows 6", fetch.from.ID)
		}
		fetch.accept().events(7, 7)
		live.events(8, 9)
		fetch.events(8, 9)
		if text, _ := read(newer); text != numbered(7, 9) {
			t.Errorf("the client that resumes with 6 has got:\n%s", text)
		}
		if text, _ := read(old); text != numbered(3, 4)+": gap\n\n"+numbered(8, 9) {
			t.Errorf("the client that resumes with 2 has got:\n%s", text)
		}
	})
}

// TestASourceMayKnowOfAGap has a source that tells what its topic cannot know: that events
// are missing although it was asked with an id.
func TestASourceMayKnowOfAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, testConfig())
		r := b.join("192.0.2.1", "")
		defer r.Close()
		first := b.next().accept()
		b.begin(r)
		first.events(1, 1)
		if text, _ := read(r); text != numbered(1, 1) {
			t.Errorf("got %q", text)
		}
		first.again()
		second := b.next()
		second.sink.Heard()
		if tell := second.sink.Accept(Opening{Gap: true}); tell != nil {
			tell()
		}
		second.events(5, 5)
		if text, _ := read(r); text != ": gap\n\n"+numbered(5, 5) {
			t.Errorf("got %q", text)
		}
	})
}

// TestAnIDThatWasDeniedIsNotTheLast has a source that is asked without an id, as the origin has
// denied that, and that says later that another connection begins. Once it had answered with
// ids of its own, it was asked without one for as long as it did so: all clients missed events.
func TestAnIDThatWasDeniedIsNotTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, testConfig())
		r := b.join("192.0.2.1", "")
		defer r.Close()
		first := b.next().accept()
		b.begin(r)
		first.events(1, 4).fail()
		b.denyID()
		unanswered := b.next()
		if unanswered.from.ID != "" {
			t.Errorf("the source is asked for what follows %q, which was denied", unanswered.from.ID)
		}
		unanswered.again()
		second := b.next()
		if second.from.ID != "" {
			t.Errorf("the source is asked for what follows %q, which was denied", second.from.ID)
		}
		second.accept().events(8, 9).again()
		for last, from := 9, b.next(); last < 12; last++ {
			if want := strconv.Itoa(last); from.from.ID != want {
				t.Errorf("the source is asked for what follows %q, want %q", from.from.ID, want)
			}
			from.accept().events(last+1, last+1).again()
			from = b.next()
		}
		if text, _ := read(r); text != numbered(1, 4)+": gap\n\n"+numbered(8, 12) {
			t.Errorf("the client has got:\n%s", text)
		}
	})
}

// The claim of the client that opens a topic must not decide what the clients of other nodes
// get.
func TestNoClaimOpensASharedConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig()
		cfg.Catchups = -1
		for shared, want := range map[bool]string{false: "5", true: ""} {
			cfg.Shared = shared
			b := newBench(t, cfg)
			r := b.join("192.0.2.1", "5")
			defer r.Close()
			if from := b.next().from.ID; from != want {
				t.Errorf("shared %t: the source is asked for what follows %q, want %q", shared, from, want)
			}
		}
	})
}
