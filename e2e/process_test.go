package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A process is a child with a process group of its own and a log.
type process struct {
	name   string
	cmd    *exec.Cmd
	log    string
	exited chan struct{}
}

func start(t *testing.T, name string, cmd *exec.Cmd) *process {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	// Pdeathsig, because no cleanup runs when the test binary itself is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", name, err)
	}
	p := &process{name: name, cmd: cmd, log: log.Name(), exited: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, p.logTail())
		}
	})
	return p
}

// kill ends the whole process group at once and waits for it.
func (p *process) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.exited
}

// terminate asks the process to end, and reports whether it did in time.
func (p *process) terminate(within time.Duration) bool {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
		return true
	case <-time.After(within):
		return false
	}
}

func (p *process) logTail() []byte {
	const most = 16 << 10
	content, _ := os.ReadFile(p.log)
	if len(content) > most {
		content = content[len(content)-most:]
		content = content[bytes.IndexByte(content, '\n')+1:]
	}
	return content
}

// awaitListening waits until the process accepts connections.
func (p *process) awaitListening(t *testing.T, network, address string) {
	t.Helper()
	eventually(t, 20*time.Second, func() error {
		select {
		case <-p.exited:
			t.Fatalf("%s ended: %v", p.name, p.cmd.ProcessState)
		default:
		}
		conn, err := net.Dial(network, address)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// program finds an executable, or fails with the name of its Debian package.
func program(t *testing.T, debianPackage string, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatalf("%s is not installed: apt-get install %s", names[0], debianPackage)
	return ""
}

// eventually polls a condition until it holds.
func eventually(t *testing.T, within time.Duration, condition func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s still: %v", within, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

var ports struct {
	sync.Mutex
	last int
}

// freePort gives out ports below the range that the kernel takes for outgoing
// connections, so that nothing can take them before the child listens.
func freePort(t *testing.T) int {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	if ports.last == 0 {
		ports.last = 20000 + os.Getpid()%8000
	}
	for range 4000 {
		ports.last++
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", ports.last))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		return ports.last
	}
	t.Fatal("no free port")
	return 0
}
