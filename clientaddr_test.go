package ssefanout

import (
	"fmt"
	"testing"
	"testing/synctest"
)

func TestCountedAddress(t *testing.T) {
	for _, tc := range []struct{ ip, want string }{
		{"203.0.113.7", "203.0.113.7"},
		{"0.0.0.0", "0.0.0.0"},
		{"::ffff:203.0.113.7", "203.0.113.7"},
		{"::ffff:cb00:7107", "203.0.113.7"},
		{"::ffff:203.0.113.7%eth0", "203.0.113.7"},
		{"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"},
		{"2001:db8:1:2::", "2001:db8:1:2::/64"},
		{"2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"},
		{"2001:DB8:0001:2::1", "2001:db8:1:2::/64"},
		{"2001:db8:1:3::1", "2001:db8:1:3::/64"},
		{"2001:db8:1:2::1%eth0", "2001:db8:1:2::/64"},
		{"fe80::1%eth0", "fe80::/64"},
		{"fe80::2%a%b", "fe80::/64"},
		{"::1", "::/64"},
		{"::", "::/64"},
		// The deprecated "IPv4-compatible" form is an ordinary IPv6 address.
		{"::203.0.113.7", "::/64"},

		{"", ""},
		{"@", ""},
		{"%eth0", ""},
		{"203.0.113", ""},
		{"203.0.113.007", ""},
		{"203.0.113.7:80", ""},
		{"[2001:db8::1]", ""},
		{" 203.0.113.7", ""},
		{"example.com", ""},
		{"/run/socket", ""},
	} {
		if got := countedAddress(tc.ip); got != tc.want {
			t.Errorf("countedAddress(%q) = %q, want %q", tc.ip, got, tc.want)
		}
	}
}

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
