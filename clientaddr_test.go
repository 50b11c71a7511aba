package ssefanout

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// No host of a network has more than another by choosing addresses, and no
// spelling of an address is another client.
func TestLimitsCountNetworksOfIPv6(t *testing.T) {
	for _, tc := range []struct {
		name   string
		ip     func(i int) string
		served int
	}{
		{"addresses of IPv4", func(i int) string { return fmt.Sprint("203.0.113.", i) }, 8},
		{"one of IPv4, mapped and not", func(i int) string {
			return []string{"203.0.113.7", "[::ffff:203.0.113.7]"}[i%2]
		}, 2},
		{"hosts of one /64", func(i int) string { return fmt.Sprintf("[2001:db8::%x:%x]", i*7919, i) }, 2},
		{"zones", func(i int) string { return fmt.Sprintf("[fe80::%x%%eth%d]", i+1, i) }, 2},
		{"many /64", func(i int) string { return fmt.Sprintf("[2001:db8:0:%x::1]", i) }, 8},
		{"no address", func(i int) string { return fmt.Sprint("host-", i) }, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, Options{MaxSubscribers: SubscriberLimits{PerClientIP: 2}})
				served := 0
				for i := range 8 {
					c := s.getFrom(tc.ip(i), "/events")
					if i == 0 {
						s.origin.next().accept()
					}
					if !c.ended() {
						served++
					}
				}
				if served != tc.served {
					t.Errorf("%d of 8 are served, want %d", served, tc.served)
				}
			})
		})
	}
}

// The queue for catch-ups belongs to no network: hosts of one /64 share a turn and a
// share of it, and its last gives way to anybody with fewer.
func TestCatchupsCountNetworksOfIPv6(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{Heartbeat: Heartbeat{Interval: -1}})
		s.joinLive(10, 12)
		var last *client
		for i := range relay.MaxQueued + 2 { // two of them run
			last = s.getFrom(fmt.Sprintf("[2001:db8::%x:%x]", i, i), "/events", "Last-Event-ID", fmt.Sprint("x", i))
		}
		s.getFrom("[2001:db8::ffff:1]", "/events", "Last-Event-ID", "one more").expect(gapPrimer("12") + gapComment)
		s.getFrom("[2001:db8:0:1::1]", "/events", "Last-Event-ID", "9").expect(primer("9"))
		s.getFrom("203.0.113.3", "/events", "Last-Event-ID", "8").expect(primer("8"))

		seen := s.onlyTopic().Snapshot()
		shares, queued := seen.CatchupAddresses, seen.CatchupsQueued
		if shares != 3 || queued != relay.MaxQueued {
			t.Errorf("%d are queued, of %d addresses, want %d of 3", queued, shares, relay.MaxQueued)
		}
		if last.ended() {
			t.Error("a client that has lost its place in the queue has lost its stream")
		}
	})
}
