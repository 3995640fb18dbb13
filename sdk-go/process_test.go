package synego_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	synego "github.com/lostabaddon/synegobase/sdk-go"
)

// TestMain is also the program that the tests of this file start.
func TestMain(m *testing.M) {
	if os.Getenv("SYNEGO_TEST_PROGRAM") == "" {
		os.Exit(m.Run())
	}
	service := synego.NewService("program")
	service.Handle("GET /hang", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done() // until the client leaves
	}))
	synego.Handle(service, "GET /log", func(ctx context.Context, _ synego.None) (synego.None, error) {
		slog.InfoContext(ctx, "handled", "order", 7, "error", errors.New("none"))
		return synego.None{}, nil
	})
	if err := service.Run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// program is a service in a process of its own.
type program struct {
	t       *testing.T
	command *exec.Cmd
	lines   *bufio.Scanner
	base    string
}

type line map[string]any

func startProgram(t *testing.T) *program {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &program{t: t, command: exec.Command(self)}
	p.command.Env = append(os.Environ(), "SYNEGO_TEST_PROGRAM=1", "SYNEGO_SIDECAR=off", "SYNEGO_INSTANCE=program-1", "PORT=")
	p.command.Env = slices.DeleteFunc(p.command.Env, func(variable string) bool { return strings.HasPrefix(variable, "SOCKET=") })
	p.command.Stderr = os.Stderr
	output, err := p.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.command.Process.Kill() }) // it ended already where the test passed
	p.lines = bufio.NewScanner(output)
	p.base = "http://" + fmt.Sprint(p.await("no sidecar")["http"])
	return p
}

// await returns the first line from here whose text holds a word.
func (p *program) await(word string) line {
	p.t.Helper()
	for p.lines.Scan() {
		var read line
		if err := json.Unmarshal(p.lines.Bytes(), &read); err != nil {
			p.t.Fatalf("no line of JSON: %s", p.lines.Text())
		}
		if strings.Contains(fmt.Sprint(read["msg"]), word) {
			return read
		}
	}
	p.t.Fatalf("the program ended before it said %q", word)
	return nil
}

func (p *program) signal(signal os.Signal) {
	p.t.Helper()
	if err := p.command.Process.Signal(signal); err != nil {
		p.t.Fatal(err)
	}
}

func TestProgramEndsWithZeroAfterTERM(t *testing.T) {
	p := startProgram(t)
	p.signal(syscall.SIGTERM)
	p.await("drained")
	if err := p.command.Wait(); err != nil {
		t.Error(err)
	}
}

func TestSecondTERMEndsAtOnce(t *testing.T) {
	p := startProgram(t)
	response, err := http.Get(p.base + "/hang")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	p.signal(syscall.SIGTERM)
	p.await("draining")
	p.signal(syscall.SIGTERM)
	_, _ = io.Copy(io.Discard, response.Body) // cut short by the end of the program
	var exit *exec.ExitError
	if err := p.command.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("ended with %v", err)
	}
}

func TestLogLinesTellTheRequest(t *testing.T) {
	p := startProgram(t)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.base+"/log", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Request-Id", "r-1")
	request.Header.Set("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	got := p.await("handled")
	for name, want := range (line{
		"level": "info", "msg": "handled", "service": "program", "instance": "program-1", "request_id": "r-1",
		"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "handler": "GET /log", "order": 7.0, "error": "none",
	}) {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	if ts := fmt.Sprint(got["ts"]); len(ts) != len("2006-01-02T15:04:05.000Z") || !strings.HasSuffix(ts, "Z") {
		t.Errorf("ts %q", ts)
	}
	p.signal(syscall.SIGTERM)
	if err := p.command.Wait(); err != nil {
		t.Error(err)
	}
}
