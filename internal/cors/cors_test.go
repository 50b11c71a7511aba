package cors

import "testing"

func TestCORSOriginsAreChecked(t *testing.T) {
	for _, tc := range []struct {
		origin string
		ok     bool
	}{
		{"https://example.com", true},
		{"http://example.com:8080", true},
		{"*", true},
		{"example.com", false},
		{"https://example.com/", false},
		{"https://example.com/app", false},
		{"https://example.com?a", false},
		{"https://alice@example.com", false},
		{"https://", false},
		{"", false},
	} {
		if _, err := New([]string{tc.origin}); (err == nil) != tc.ok {
			t.Errorf("%q: got error %v, want it accepted: %t", tc.origin, err, tc.ok)
		}
	}
}
