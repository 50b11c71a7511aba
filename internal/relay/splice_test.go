package relay

import (
	"testing"
	"testing/synctest"
	"time"
)

// Each case of the splice, by the smallest that brings it about. The log has events 10 to
// 12, the newest just come, unless setup says otherwise; the client has brought id 8.
func TestSplice(t *testing.T) {
	seen := make(map[string]bool)
	for _, tc := range []struct {
		missing, jumping string
		joins            bool
		id               string
		cfg              func(*Config)
		setup            func(up *call)
		meet             func(b *bench, up, catchup *call)
	}{
		{
			missing: "the log's first event", jumping: "in what the log had", joins: true,
			meet: func(_ *bench, _, catchup *call) { catchup.events(9, 10) },
		},
		{
			missing: "a hole",
			meet:    func(_ *bench, _, catchup *call) { catchup.events(12, 12) },
		},
		{
			missing: "the log's first event with an id", jumping: "in what the log had", joins: true,
			setup: func(up *call) { up.unnumbered(2).events(10, 12) },
			meet:  func(_ *bench, _, catchup *call) { catchup.events(9, 10) },
		},
		{
			missing: "the next event", jumping: "what followed the id", joins: true, id: "20",
			meet: func(_ *bench, up, catchup *call) {
				catchup.events(21, 21)
				up.send(13, 22) // the catch-up has not looked since
				catchup.events(22, 22)
			},
		},
		{
			missing: "past the log's lost beginning",
			cfg:     func(cfg *Config) { cfg.CatchupTimeout = time.Hour },
			setup: func(up *call) {
				up.events(10, 11)
				time.Sleep(4 * time.Minute)
				up.events(12, 12)
			},
			meet: func(_ *bench, _, catchup *call) {
				time.Sleep(2 * time.Minute)
				catchup.events(12, 12)
			},
		},
		{
			missing: "a greeting", jumping: "nothing with an id", joins: true, id: "-",
			cfg: func(cfg *Config) { cfg.GreetingEvents = 1 },
			setup: func(up *call) {
				up.events(9, 10)
				time.Sleep(time.Hour) // what followed the greeting is gone
				up.events(11, 12)
			},
			meet: func(_ *bench, _, catchup *call) { catchup.events(12, 12) },
		},
		{
			jumping: "past the log's end",
			meet: func(_ *bench, up, catchup *call) {
				catchup.events(13, 13)
				up.events(13, 13)
			},
		},
		{
			jumping: "by the log's end", joins: true,
			setup: func(*call) {}, // the log is empty
			meet: func(_ *bench, up, catchup *call) {
				catchup.events(9, 10)
				up.events(10, 10)
			},
		},
		{
			jumping: "what followed the id", joins: true, id: "20",
			meet: func(_ *bench, up, catchup *call) {
				catchup.events(21, 22)
				up.events(13, 22)
			},
		},
		{
			jumping: "something else than what followed the id", id: "20",
			meet: func(_ *bench, up, catchup *call) {
				catchup.events(25, 25)
				up.events(13, 25)
			},
		},
		{
			missing: "the log's first event", jumping: "the origin refuses ids", joins: true,
			setup: func(up *call) {
				up.events(10, 12)
				up.fail()
			},
			meet: func(b *bench, up, catchup *call) {
				catchup.events(9, 9)
				up.send(13, 13)
				catchup.events(13, 13)
			},
		},
	} {
		t.Run(tc.missing+", "+tc.jumping, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := testConfig()
				if tc.cfg != nil {
					tc.cfg(&cfg)
				}
				b := newBench(t, cfg)
				live := b.join("a", "")
				defer live.Close()
				up := b.next().accept()
				if tc.setup == nil {
					up.events(10, 12)
				} else {
					tc.setup(up)
				}
				b.begin(live)
				if tc.jumping == "the origin refuses ids" {
					b.denyID()
					up = b.next().accept()
					synctest.Wait()
				}
				id := tc.id
				switch id {
				case "":
					id = "8"
				case "-":
					id = ""
				}
				r := b.join("b", id)
				defer r.Close()
				b.begin(r)
				tc.meet(b, up, b.next().accept())
				if len(b.observer.caught) != 1 {
					t.Fatalf("%d catch-ups are over, want 1", len(b.observer.caught))
				}
				got := b.observer.caught[0]
				if got.Missing != tc.missing || got.Jumping != tc.jumping || got.Resumed != tc.joins {
					t.Errorf("got %q, %q, %t; want %q, %q, %t", got.Missing, got.Jumping, got.Resumed, tc.missing, tc.jumping, tc.joins)
				}
				seen[got.Missing], seen[got.Jumping] = true, true
			})
		})
	}
	for _, table := range [][]ruling{missing, jumping} {
		for _, r := range table {
			if !seen[r.name] {
				t.Errorf("no case brings about %q", r.name)
			}
		}
	}
}
