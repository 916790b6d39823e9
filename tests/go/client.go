package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// task is what the client is told: see tests/compatibility/matrix.rs, which judges what came of it.
type task struct {
	URL      string   `json:"url"`
	Command  []string `json:"command"`
	Trace    string   `json:"trace"`
	Note     string   `json:"note"`
	Only     []string `json:"only"`
	Patience float64  `json:"patience"`
	Soon     float64  `json:"soon"`
}

// client is one connection, and what it was told of its own accord.
type client struct {
	task
	session *mcp.ClientSession
	mutex   sync.Mutex
	told    map[string][]string
}

// operations are what every client of the matrix does, once each and in this order.
var operations = []struct {
	name string
	run  func(*client, context.Context) error
}{
	{"list", (*client).list},
	{"call", (*client).call},
	{"progress", (*client).progress},
	{"log", (*client).log},
	{"cancel", (*client).cancel},
	{"elicitation", says("ask", "hello Ada")},
	{"sampling", says("sample", "it said words")},
	{"roots", says("roots", "file:///work")},
	{"subscribe", (*client).subscribe},
	{"error", (*client).error},
	{"large", (*client).large},
	{"crash", (*client).crash},
}

// tell keeps what was told, and returns how much of its kind that is.
func (c *client) tell(kind, what string) int {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.told[kind] = append(c.told[kind], what)
	return len(c.told[kind])
}

// heard waits for something of a kind.
func (c *client) heard(ctx context.Context, kind string) ([]string, error) {
	for {
		c.mutex.Lock()
		told := slices.Clone(c.told[kind])
		c.mutex.Unlock()
		if len(told) > 0 {
			return told, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("no %s: %w", kind, ctx.Err())
		case <-time.After(look):
		}
	}
}

// soon is how long something may take that is on its way.
func (c *client) soon(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, time.Duration(c.Soon*float64(time.Second)))
}

func (c *client) connect(ctx context.Context) error {
	sdk := mcp.NewClient(&mcp.Implementation{Name: "matrix", Version: "1"}, &mcp.ClientOptions{
		ElicitationHandler: func(_ context.Context, req *mcp.ElicitRequest) (*mcp.ElicitResult, error) {
			content := map[string]any{}
			for name := range req.Params.RequestedSchema.(map[string]any)["properties"].(map[string]any) {
				content[name] = "Ada"
			}
			return &mcp.ElicitResult{Action: "accept", Content: content}, nil
		},
		CreateMessageHandler: func(context.Context, *mcp.CreateMessageRequest) (*mcp.CreateMessageResult, error) {
			return &mcp.CreateMessageResult{Role: "assistant", Model: "m", Content: &mcp.TextContent{Text: "words"}}, nil
		},
		LoggingMessageHandler: func(_ context.Context, req *mcp.LoggingMessageRequest) {
			c.tell("log", fmt.Sprint(req.Params.Data))
		},
		ProgressNotificationHandler: func(_ context.Context, req *mcp.ProgressNotificationClientRequest) {
			if c.tell("progress", fmt.Sprint(req.Params.Progress, " of ", req.Params.Total)) == 3 {
				_ = os.WriteFile(c.Trace+".seen", nil, 0o600)
			}
		},
		ResourceUpdatedHandler: func(_ context.Context, req *mcp.ResourceUpdatedNotificationRequest) {
			c.tell("updated", req.Params.URI)
		},
	})
	sdk.AddRoots(&mcp.Root{URI: "file:///work", Name: "work"})
	var transport mcp.Transport = &mcp.StreamableClientTransport{Endpoint: c.URL}
	if c.URL == "" {
		transport = &mcp.CommandTransport{Command: exec.Command(c.Command[0], c.Command[1:]...)}
	}
	session, err := sdk.Connect(ctx, transport, nil)
	c.session = session
	return err
}

// tool calls one and returns whether it failed, and its text.
func (c *client) tool(ctx context.Context, params *mcp.CallToolParams) (bool, string, error) {
	result, err := c.session.CallTool(ctx, params)
	if err != nil {
		return false, "", err
	}
	said, ok := result.Content[0].(*mcp.TextContent)
	if !ok {
		return false, "", fmt.Errorf("%T", result.Content[0])
	}
	return result.IsError, said.Text, nil
}

// says is an operation: to call a tool that says something that begins so.
func says(name, wanted string) func(*client, context.Context) error {
	return func(c *client, ctx context.Context) error {
		isError, said, err := c.tool(ctx, &mcp.CallToolParams{Name: name})
		if err == nil && (isError || !strings.HasPrefix(said, wanted)) {
			err = fmt.Errorf("%v, %.200q", isError, said)
		}
		return err
	}
}

func (c *client) list(ctx context.Context) error {
	listed, err := c.session.ListTools(ctx, nil)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(listed.Tools, func(tool *mcp.Tool) bool { return tool.Name == "echo" }) {
		return errors.New("no echo")
	}
	return nil
}

func (c *client) call(ctx context.Context) error {
	isError, said, err := c.tool(ctx, &mcp.CallToolParams{Name: "echo", Arguments: map[string]any{"text": "h\u00e4llo"}})
	if err == nil && (isError || said != "h\u00e4llo") {
		err = fmt.Errorf("%v, %.200q", isError, said)
	}
	return err
}

func (c *client) progress(ctx context.Context) error {
	params := &mcp.CallToolParams{Name: "steps", Arguments: trace{c.Trace}}
	params.SetProgressToken("steps")
	if _, said, err := c.tool(ctx, params); err != nil || said != "three steps" {
		return errors.Join(err, fmt.Errorf("%.200q", said))
	}
	told, err := c.heard(ctx, "progress")
	// Its handlers run beside each other.
	slices.Sort(told)
	if err == nil && !slices.Equal(told, []string{"1 of 3", "2 of 3", "3 of 3"}) {
		err = fmt.Errorf("%v", told)
	}
	return err
}

func (c *client) log(ctx context.Context) error {
	params := &mcp.CallToolParams{Name: "log"}
	params.SetMeta(map[string]any{mcp.MetaKeyLogLevel: "info"})
	if c.session.InitializeResult().ProtocolVersion < "2026-07-28" && c.session.InitializeResult().Capabilities.Logging != nil {
		params.SetMeta(nil)
		if err := c.session.SetLoggingLevel(ctx, &mcp.SetLoggingLevelParams{Level: "info"}); err != nil {
			return err
		}
	}
	if _, said, err := c.tool(ctx, params); err != nil || said != "logged" {
		return errors.Join(err, fmt.Errorf("%.200q", said))
	}
	ctx, done := c.soon(ctx)
	defer done()
	told, err := c.heard(ctx, "log")
	// FastMCP wraps what it logs.
	if err == nil && !strings.Contains(told[0], "a line") {
		err = fmt.Errorf("%v", told)
	}
	return err
}

func (c *client) cancel(ctx context.Context) error {
	waiting, abandon := context.WithCancel(ctx)
	defer abandon()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _, _ = c.tool(waiting, &mcp.CallToolParams{Name: "wait", Arguments: trace{c.Trace}})
	}()
	if err := exists(ctx, c.Trace+".waits"); err != nil {
		return err
	}
	abandon()
	<-ended
	ctx, done := c.soon(ctx)
	defer done()
	return exists(ctx, c.Trace+".cancelled")
}

func (c *client) subscribe(ctx context.Context) error {
	uri := "file://" + c.Note
	if err := c.session.Subscribe(ctx, &mcp.SubscribeParams{URI: uri}); err != nil {
		return err
	}
	// Who listens sees changes from when it began to, which nobody is told: it changes until one is seen.
	seen, stop := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stop)
		for {
			select {
			case <-seen:
				return
			case now := <-time.After(200 * time.Millisecond):
				_ = os.WriteFile(c.Note, []byte(now.String()), 0o600)
			}
		}
	}()
	told, err := c.heard(ctx, "updated")
	close(seen)
	<-stop
	if err == nil && told[0] != uri {
		err = fmt.Errorf("%v", told)
	}
	return err
}

func (c *client) error(ctx context.Context) error {
	isError, said, err := c.tool(ctx, &mcp.CallToolParams{Name: "fail"})
	if err == nil && (!isError || !strings.Contains(said, "it failed")) {
		err = fmt.Errorf("%v, %.200q", isError, said)
	}
	return err
}

func (c *client) large(ctx context.Context) error {
	isError, said, err := c.tool(ctx, &mcp.CallToolParams{Name: "large"})
	if err == nil && (isError || len(said) != 2<<20) {
		err = fmt.Errorf("%v, %d", isError, len(said))
	}
	return err
}

func (c *client) crash(ctx context.Context) error {
	_, _, _ = c.tool(ctx, &mcp.CallToolParams{Name: "crash"}) // in whatever way
	if err := exists(ctx, c.Trace+".back"); err != nil {
		return err
	}
	return c.call(ctx)
}

// visit does each operation, with a new connection after each that went wrong, and prints what came of each: "ok", or in a
// few words what came instead.
func visit(argument string) {
	var about task
	if err := json.Unmarshal([]byte(argument), &about); err != nil {
		log.Fatal(err)
	}
	seen := map[string]string{"connect": "ok"}
	var c *client
	for _, operation := range operations {
		if !slices.Contains(about.Only, operation.name) {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(about.Patience*float64(time.Second)))
		defer cancel()
		if c == nil {
			c = &client{task: about, told: map[string][]string{}}
			if err := c.connect(ctx); err != nil {
				seen["connect"] = words(err)
				break
			}
		}
		err := operation.run(c, ctx)
		seen[operation.name] = words(err)
		if err != nil {
			go c.session.Close()
			c = nil
		}
	}
	answer, _ := json.Marshal(seen)
	fmt.Println(string(answer))
}

func words(err error) string {
	if err == nil {
		return "ok"
	}
	return fmt.Sprintf("%.200s", strings.ReplaceAll(err.Error(), "\n", " "))
}
