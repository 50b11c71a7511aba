package ssefanout

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func snapshot(version int) string {
	return fmt.Sprintf("id: %d\nevent: snapshot\ndata: %d\n\n", version, version)
}

func patches(from, to int) string {
	var b strings.Builder
	for v := from; v <= to; v++ {
		fmt.Fprintf(&b, "id: %d\nevent: patch\ndata: +1\n\n", v)
	}
	return b.String()
}

func TestGreetingPrecedesWhatCameAfterIt(t *testing.T) {
	for _, greeting := range []string{"1", "snapshot"} {
		t.Run(greeting, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				s := newSetup(t, Options{Greeting: greeting})
				first := s.get("/events")
				up := s.origin.next().accept().send(snapshot(7) + patches(8, 9))
				first.expect(primer("") + snapshot(7) + patches(8, 9))

				late := s.get("/events")
				late.expect(primer("") + snapshot(7) + patches(8, 9))
				up.send(patches(10, 10))
				late.expect(patches(10, 10))

				resuming := s.get("/events", "Last-Event-ID", "9")
				resuming.expect(primer("9") + patches(10, 10))
			})
		})
	}
}

func TestGreetingOfTheNewestConnection(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{Greeting: "2"})
		live := s.get("/events")
		hello := "event: hello\ndata: world\n\n"
		up := s.origin.next().accept().send(hello + snapshot(7) + patches(8, 9))
		live.expect(primer("") + hello + snapshot(7) + patches(8, 9))
		up.abort()
		time.Sleep(time.Second)
		up = s.origin.next().accept().send(hello + snapshot(11))
		live.expect(hello + snapshot(11))
		s.get("/events").expect(primer("") + hello + snapshot(11))
		up.send(patches(12, 12))
		s.get("/events").expect(primer("") + hello + snapshot(11) + patches(12, 12))
	})
}

func TestGreetingThatTheLogNoLongerReaches(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{Greeting: "1", History: History{Size: 200}})
		first := s.get("/events")
		up := s.origin.next().accept().send(snapshot(1) + patches(2, 30))
		first.read()

		late, later := s.get("/events"), s.get("/events")
		late.expect(primer(""))
		catchup := s.origin.next()
		if got := catchup.request.Header.Get("Last-Event-ID"); got != "" {
			t.Errorf("a greeting was asked for with id %q", got)
		}
		catchup.accept().send(snapshot(30))
		late.expect(snapshot(30))
		later.expect(primer("") + snapshot(30))
		up.send(patches(31, 31))
		late.expect(patches(31, 31))

		// From then on, the new greeting serves.
		s.get("/events").expect(primer("") + snapshot(30) + patches(31, 31))
		s.origin.idle()
	})
}

func TestGreetingWaitsForItsTurn(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{
			Greeting: "1", History: History{Size: 200}, Catchup: Catchup{Connections: 1},
			Heartbeat: Heartbeat{Interval: -1},
		})
		first := s.get("/events")
		s.origin.next().accept().send(snapshot(1) + patches(2, 30))
		first.read()

		other := s.get("/events", "Last-Event-ID", "3")
		s.origin.next().accept()
		late := s.get("/events")
		late.expect(primer(""))
		other.leave()
		s.origin.next().accept().send(snapshot(30))
		late.expect(snapshot(30))
	})
}

func TestGreetingOfAnOriginWithoutIDsIsAGapOnceTheLogHasPassedIt(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{Greeting: "1", History: History{Size: 60}, Heartbeat: Heartbeat{Interval: -1}})
		s.get("/events")
		up := s.origin.next().accept().send("data: snapshot\n\n" + strings.Repeat("data: patch\n\n", 10))
		late := s.get("/events")
		late.expect(primer(""))
		catchup := s.origin.next().accept().send("retry: 3000\n\n").send("data: snapshot\n\n")
		late.expect("retry: 3000\n\n" + "data: snapshot\n\n" + "id: \n" + gapComment)
		up.send("data: next\n\n")
		late.expect("data: next\n\n")
		if !catchup.closed() {
			t.Error("the connection for the catch-up is left")
		}
	})
}

// A counter that sends its value first and then changes: whoever joins at any
// time, over any number of reconnections, must come to the same value as a
// client with a connection of its own.
func TestGreetingGivesTheStateOfAConnectionOfOnesOwn(t *testing.T) {
	for seed := range seeds(20) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 0))
				s := newSetup(t, Options{Greeting: "snapshot", History: History{Size: 300}, Heartbeat: Heartbeat{Interval: -1}})
				version := 100
				clients := []*client{s.get("/events")}
				up := s.origin.next().accept().send(snapshot(version))
				for range 200 {
					switch rng.IntN(10) {
					case 0:
						clients = append(clients, s.get("/events"))
						if s.origin.asked() {
							c := s.origin.next().accept().send(snapshot(version))
							if !c.closed() {
								t.Fatal("the catch-up goes on though the log has its version")
							}
						}
					case 1:
						up.abort()
						missed := rng.IntN(3)
						time.Sleep(31 * time.Second)
						version += missed
						up = s.origin.next().accept().send(snapshot(version))
					default:
						version++
						up.send(patches(version, version))
					}
				}
				for i, c := range clients {
					if got := state(t, c.read()); got != version {
						t.Errorf("client %d has come to %d, want %d", i, got, version)
					}
				}
			})
		})
	}
}

// state computes the value of a counter as a page would.
func state(t *testing.T, stream string) (value int) {
	t.Helper()
	for block := range strings.SplitSeq(stream, "\n\n") {
		switch {
		case strings.Contains(block, "event: snapshot"):
			_, data, _ := strings.Cut(block, "data: ")
			if _, err := fmt.Sscan(data, &value); err != nil {
				t.Fatal(err)
			}
		case strings.Contains(block, "event: patch"):
			value++
		case strings.Contains(block, "gap"):
			t.Errorf("a gap was told: %q", block)
		}
	}
	return value
}
