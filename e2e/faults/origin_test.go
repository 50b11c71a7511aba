package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/e2e/origins"
)

// originEnv makes the test binary an origin: one that can be killed.
const originEnv = "SSE_FANOUT_FAULTS_ORIGIN"

// An originConfig is all that an origin needs to be the same after a restart.
type originConfig struct {
	Addr, Control string // TCP, and a Unix socket for the test
	Epoch         time.Time
	Interval      time.Duration
	Lookback      time.Duration
	Bursts        []origins.Burst
	Journal       string // a file; empty: none
}

func (c *originConfig) numbered() *origins.Numbered {
	return &origins.Numbered{Epoch: c.Epoch, Interval: c.Interval, Lookback: c.Lookback, Bursts: c.Bursts}
}

func originMain(config string) {
	var c originConfig
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	o := c.numbered()
	if c.Journal != "" {
		file, err := os.OpenFile(c.Journal, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Fprintln(file, time.Now().UnixNano(), journalBegins, 0)
		o.Journal = file
	}
	o.StartOver()
	control := http.NewServeMux()
	control.HandleFunc("/outage", func(w http.ResponseWriter, r *http.Request) {
		var status int
		_, _ = fmt.Sscan(r.FormValue("status"), &status)
		d, _ := time.ParseDuration(r.FormValue("for"))
		o.Outage(status, r.FormValue("retry_after"), d)
	})
	control.HandleFunc("/end", func(http.ResponseWriter, *http.Request) { o.End() })
	control.HandleFunc("/anew", func(http.ResponseWriter, *http.Request) { o.StartOver() })
	control.HandleFunc("/streams", func(w http.ResponseWriter, r *http.Request) {
		now, most := o.Streams()
		fmt.Fprint(w, now, most)
	})
	_ = os.Remove(c.Control)
	ln, err := net.Listen("unix", c.Control)
	if err == nil {
		go http.Serve(ln, control)
		err = http.ListenAndServe(c.Addr, o)
	}
	fmt.Println(err)
	os.Exit(1)
}

// An origin is a child process that runs originMain.
type origin struct {
	*process
	config originConfig
	log    string
	netns  string // where it runs; empty: here
	talk   *http.Client
}

func newOrigin(t *testing.T, config originConfig, netns string) *origin {
	t.Helper()
	dir := t.TempDir()
	config.Control = filepath.Join(dir, "control")
	o := &origin{config: config, log: filepath.Join(dir, "origin.log"), netns: netns}
	o.talk = &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", config.Control)
		},
	}}
	o.launch(t)
	// Another namespace may have its address, and everybody would be behind for ever.
	eventually(t, 20*time.Second, func() error {
		conn, err := net.Dial("tcp", config.Addr)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	t.Cleanup(func() {
		o.kill()
		if log, _ := os.ReadFile(o.log); len(log) > 0 {
			t.Logf("log of the origin:\n%s", log)
		}
	})
	return o
}

func (o *origin) launch(t *testing.T) {
	t.Helper()
	config, err := json.Marshal(o.config)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	if o.netns != "" {
		cmd = exec.Command("ip", "netns", "exec", o.netns, os.Args[0]) // it becomes the origin: the process is the same
	}
	cmd.Env = append(os.Environ(), originEnv+"="+string(config))
	o.process = start(t, "the origin", o.log, cmd)
	eventually(t, 20*time.Second, func() error {
		_, _, err := o.streams()
		return err
	})
}

func (o *origin) streams() (now, most int, err error) {
	resp, err := o.talk.Get("http://origin/streams")
	if err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close()
	_, err = fmt.Fscan(resp.Body, &now, &most)
	return now, most, err
}

// end makes the origin end its streams.
func (o *origin) end() error { return o.tell("end") }

// startOver makes it count anew, too.
func (o *origin) startOver() error { return o.tell("anew") }

func (o *origin) tell(what string) error {
	resp, err := o.talk.Get("http://origin/" + what)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func (o *origin) outage(status int, retryAfter string, d time.Duration) error {
	query := url.Values{"status": {fmt.Sprint(status)}, "for": {d.String()}, "retry_after": {retryAfter}}
	resp, err := o.talk.Get("http://origin/outage?" + query.Encode())
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
