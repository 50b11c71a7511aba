package ssefanout

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

// What would merge users, or cut every event, must not get in by JSON either,
// which no parser of ours has seen.
func TestOptionsInJSON(t *testing.T) {
	for _, tc := range []struct {
		options string
		want    string // part of the error; empty means none
	}{
		{`"vary": ["Cookie", "{http.auth.user.id}", "{http.request.header.X-*}"]`, ""},
		{`"vary": ["*"]`, `checking vary: "*" matches no header: name each one`},
		{`"vary": ["X-*"]`, `checking vary: "X-*" matches no header`},
		{`"vary": ["http.auth.user.id"]`, `checking vary: "http.auth.user.id" is no header: is the placeholder {http.auth.user.id} meant?`},
		{`"vary": ["X-Tenant "]`, `checking vary: "X-Tenant " is neither a header name nor a placeholder in braces`},
		{`"vary": ["X:Tenant"]`, `checking vary: "X:Tenant" is neither`},
		{`"vary": ["{http.auth.user.id"]`, `checking vary: "{http.auth.user.id" is neither`},
		{`"vary": [""]`, `checking vary: "" is neither`},
		{`"cors_origins": ["https://*.example.com"]`, `checking cors_origins: "https://*.example.com" matches no origin: list each one`},
		{`"cors_origins": ["https://example.com:*"]`, `checking cors_origins: "https://example.com:*" matches no origin`},
		{`"cors_origins": ["https://example.com", "*"]`, ""},
		{`"max_event_size": 1023`, "checking max_event_size: must be at least 1 KiB, and is 1023 bytes"},
		{`"max_event_size": 1024`, ""},
	} {
		var config caddy.Config
		if err := json.Unmarshal([]byte(`{"admin": {"disabled": true}, "apps": {"http": {"servers": {"srv0": {"listen": [":8080"],
			"routes": [{"handle": [{"handler": "sse_fanout", `+tc.options+`}]}]}}}}}`), &config); err != nil {
			t.Fatal(err)
		}
		err := caddy.Validate(&config)
		if err == nil && tc.want != "" || err != nil && (tc.want == "" || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: got %v, want %q", tc.options, err, tc.want)
		}
	}
}
