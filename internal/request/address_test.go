package request

import "testing"

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
		if got := CountedAddress(tc.ip); got != tc.want {
			t.Errorf("CountedAddress(%q) = %q, want %q", tc.ip, got, tc.want)
		}
	}
}
