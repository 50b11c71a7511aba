package ssefanout

import (
	"fmt"
	"strings"
	"testing"
)

// One line in each of two sites, or routes, is told apart by where it stands.
func TestReloadKeepsTheStreamsOfEqualHandlers(t *testing.T) {
	const line = "sse_fanout {\nstream_close_delay 1ms\n}\nreverse_proxy "
	for _, tc := range []struct {
		name     string
		sites    string // with the port, and the addresses of two origins
		one, two string // URLs, of which the first is served by the first origin
		hosts    [2]string
	}{
		{
			"sites", "http://a.example:%[1]d {\n" + line + "%[2]s\n}\nhttp://b.example:%[1]d {\n" + line + "%[3]s\n}",
			"/events", "/events", [2]string{"a.example", "b.example"},
		},
		{
			"paths", "http://a.example:%[1]d {\nhandle /a/* {\n" + line + "%[2]s\n}\nhandle /b/* {\n" + line + "%[3]s\n}\n}",
			"/a/events", "/b/events", [2]string{"a.example", "a.example"},
		},
		{
			"matchers of one path", "http://a.example:%[1]d {\n@b query b=*\nroute {\nroute @b {\n" + line + "%[3]s\n}\n" + line + "%[2]s\n}\n}",
			"/events", "/events?b=1", [2]string{"a.example", "a.example"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			origins := []*liveOrigin{newLiveOrigin(t), newLiveOrigin(t)}
			s := newSite(t)
			load := func(before, version string) {
				t.Helper()
				s.loadSites(fmt.Sprintf(before+tc.sites+"\nhttp://c.example:%[1]d {\nrespond /version %[4]s\n}",
					s.http, origins[0].addr, origins[1].addr, version))
				s.awaitVersion(version, "c.example")
			}
			load("", "old")
			var clients []*stream
			for i, path := range []string{tc.one, tc.two} {
				origins[i].sendFirst(numbered(1, 1))
				c := open(t, s.client, s.url+path, "Host", tc.hosts[i])
				c.expect(numbered(1, 1))
				clients = append(clients, c)
			}
			load("http://0.example:%[1]d {\nrespond another\n}\n", "new")
			for i, c := range clients {
				origins[i].send(numbered(2, 2))
				c.expect(numbered(2, 2))
			}
		})
	}
}

// What stood behind access control is not handed on to what stands elsewhere.
func TestReloadDoesNotHandOnToAnotherPlace(t *testing.T) {
	const (
		auth    = "basic_auth {\nalice $2a$04$LQbYWDw2A3pL/O1GZwU4EOQSETPNLnvWlFxcuTosMNSmslvgUuDp2\n}\n"
		wrapped = "sse_fanout {\ncredentials strip\nfirst_event oldest\n}\nreverse_proxy "
	)
	for name, tc := range map[string]struct{ private, public string }{
		"matcher, none": {"@m header Authorization *\nhandle @m", "handle"},
		"two negations": {"@m not header !Authorization\nhandle @m", "@m not header Authorization *\nhandle @m"},
	} {
		t.Run(name, func(t *testing.T) {
			private, public := newLiveOrigin(t), newLiveOrigin(t)
			s := run(t, "handle /version {\nrespond old\n}\n"+tc.private+" {\n"+auth+wrapped+private.addr+"\n}")
			alice := ask200(t, s.client, s.url+"/events", "Authorization", "Basic YWxpY2U6c2VjcmV0")
			private.send("data: secret\n\n")
			alice.expect("data: secret\n\n")

			s.load("handle /version {\nrespond new\n}\n" + tc.public + " {\n" + wrapped + public.addr + "\n}")
			s.awaitVersion("new", "")
			public.sendFirst("data: public\n\n")
			bob := open(t, s.client, s.url+"/events")
			if got := bob.next(); !strings.Contains(got, "public") {
				t.Errorf("a client of what is public got %q", got)
			}
		})
	}
}
