package ssefanout

import (
	"fmt"
	"strings"
	"testing"
)

// Each stream counts for each limit of its topic as a client with one stream does, and gives
// its place back when the connection ends.
func TestEachStreamOfAConnectionCounts(t *testing.T) {
	for options, query := range map[string]string{
		"max_subscribers 2":                     "a=/1&b=/2&c=/3&d=/1",
		"max_subscribers off per_topic 2":       "a=/1&b=/1&c=/1&d=/1",
		"max_subscribers off per_client_ip 2":   "a=/1&b=/2&c=/3&d=/1",
		"max_topics 2":                          "a=/1&b=/2&c=/3&d=/4",
		"max_topics 100 per_client_ip 2":        "a=/1&b=/2&c=/3&d=/4",
		"max_subscribers 100 per_client_ip 2":   "a=/1&b=/2&c=/3&d=/4",
		"max_subscribers 2\nunavailable reject": "a=/1&b=/2&c=/3&d=/4",
		"max_topics 2\nunavailable reject":      "a=/1&b=/2&c=/3&d=/4",
	} {
		t.Run(options, func(t *testing.T) {
			waitFor(t, "the last test to be over", func() bool { all, _ := subscribersNow(); return all == 0 })
			origin := newLiveOrigin(t)
			s := run(t, fmt.Sprintf(`
	handle /streams* {
		sse_multiplex
	}
	handle {
		sse_fanout %s {
			linger off
			%s
		}
	}`, origin.addr, options))
			for range 2 {
				c := s.multiplexed(query)
				opened, turnedAway := 0, 0
				for range 4 {
					switch e := c.next(); {
					case strings.HasSuffix(e.typ, "/open"):
						opened++
					case strings.HasSuffix(e.typ, "/end"):
						var delay int
						if _, err := fmt.Sscanf(e.data, `{"retry":%d}`, &delay); err != nil || delay < 5000 || delay > 30000 {
							t.Errorf("got %v, want a time to come back", e)
						}
						turnedAway++
					case strings.Contains(options, "reject") && e.data == `{"status":503}`:
						turnedAway++
					default:
						t.Errorf("got %v", e)
					}
				}
				if opened != 2 || turnedAway != 2 {
					t.Errorf("%d streams have begun and %d were turned away, want 2 and 2", opened, turnedAway)
				}
				if all, _ := subscribersNow(); all != 2 {
					t.Errorf("there are %d subscribers, want 2", all)
				}
				c.cancel()
				waitFor(t, "the places to be free", func() bool { all, _ := subscribersNow(); return all == 0 && origin.open() == 0 })
			}
		})
	}
}

// A client of one stream and a connection count for the same limits.
func TestConnectionsAndSingleStreamsCountTogether(t *testing.T) {
	waitFor(t, "the last test to be over", func() bool { all, _ := subscribersNow(); return all == 0 })
	origin := newLiveOrigin(t)
	s := run(t, fmt.Sprintf(`
	handle /streams* {
		sse_multiplex
	}
	handle {
		sse_fanout %s {
			max_subscribers off per_client_ip 3
		}
	}`, origin.addr))
	c := s.multiplexed("a=/1&b=/2")
	c.expectAll("a/open {}", "b/open {}")
	single := open(t, s.client, s.url+"/1")
	if got := ask200(t, s.client, s.url+"/1").next(); !strings.HasPrefix(got, "retry: ") {
		t.Errorf("a fourth stream got %q, want a time to come back", got)
	}
	c.cancel()
	waitFor(t, "the places to be free", func() bool { all, _ := subscribersNow(); return all == 1 })
	open(t, s.client, s.url+"/1")
	open(t, s.client, s.url+"/2")
	single.cancel()
}
