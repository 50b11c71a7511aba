package demo

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func TestUnmarshalCaddyfile(t *testing.T) {
	for _, tc := range []struct {
		name  string
		input string
		into  caddyfile.Unmarshaler
		want  string // the JSON, or a part of the error
	}{
		{"origin", "sse_demo_origin", new(Origin), `{}`},
		{"origin with limit", "sse_demo_origin {\n max_connections 7\n}", new(Origin), `{"max_connections":7}`},
		{"origin with argument", "sse_demo_origin 7", new(Origin), "wrong argument count"},
		{"limit missing", "sse_demo_origin {\n max_connections\n}", new(Origin), "wrong argument count"},
		{"limit zero", "sse_demo_origin {\n max_connections 0\n}", new(Origin), "'0' is not a number between 1 and 10000"},
		{"limit negative", "sse_demo_origin {\n max_connections -3\n}", new(Origin), "'-3' is not a number between 1 and 10000"},
		{"limit no number", "sse_demo_origin {\n max_connections five\n}", new(Origin), "'five' is not a number between 1 and 10000"},
		{"limit and more", "sse_demo_origin {\n max_connections 5 6\n}", new(Origin), "wrong argument count"},
		{"limit twice", "sse_demo_origin {\n max_connections 5\n max_connections 6\n}", new(Origin), "max_connections is given twice"},
		{"origin unknown", "sse_demo_origin {\n max 5\n}", new(Origin), "unrecognized subdirective 'max'; allowed is max_connections"},

		{"page", "sse_demo_page", new(Page), `{}`},
		{"page with clients", "sse_demo_page {\n clients http://127.0.0.1:8080/x\n}", new(Page), `{"clients":"http://127.0.0.1:8080/x"}`},
		{"page with bound", "sse_demo_page {\n clients http://127.0.0.1:8080/x 50\n}", new(Page), `{"clients":"http://127.0.0.1:8080/x","max_clients":50}`},
		{"page with argument", "sse_demo_page x", new(Page), "wrong argument count"},
		{"clients missing", "sse_demo_page {\n clients\n}", new(Page), "wrong argument count"},
		{"clients no URL", "sse_demo_page {\n clients localhost\n}", new(Page), "checking clients: \"localhost\" is not an http:// URL with a host"},
		{"clients too many", "sse_demo_page {\n clients http://a/ 10001\n}", new(Page), "'10001' is not a number between 1 and 10000"},
		{"clients and more", "sse_demo_page {\n clients http://a/ 1 2\n}", new(Page), "wrong argument count"},
		{"clients twice", "sse_demo_page {\n clients http://a/\n clients http://b/\n}", new(Page), "clients is given twice"},
		{"page unknown", "sse_demo_page {\n client x\n}", new(Page), "unrecognized subdirective 'client'; allowed is clients"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := tc.into.UnmarshalCaddyfile(caddyfile.NewTestDispenser(tc.input))
			if !strings.HasPrefix(tc.want, "{") {
				if err == nil || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(tc.want)) {
					t.Errorf("got error %v, want %s", err, tc.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.Marshal(tc.into)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}
