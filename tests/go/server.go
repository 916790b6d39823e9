package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// How often the server looks whether the note has changed.
const look = 50 * time.Millisecond

var (
	who = &mcp.ElicitParams{
		Message: "Who is it?",
		RequestedSchema: &jsonschema.Schema{
			Type:       "object",
			Properties: map[string]*jsonschema.Schema{"name": {Type: "string"}},
		},
	}
	something = &mcp.CreateMessageParams{
		MaxTokens: 10,
		Messages:  []*mcp.SamplingMessage{{Role: "user", Content: &mcp.TextContent{Text: "Say something."}}},
	}
)

type none struct{}

// exists waits until there is such a file.
func exists(ctx context.Context, path string) error {
	for {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no %s: %w", path, ctx.Err())
		case <-time.After(look):
		}
	}
}

func text(format string, values ...any) *mcp.CallToolResult {
	return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: fmt.Sprintf(format, values...)}}}
}

// tool adds a tool that says something or fails.
func tool[In any](server *mcp.Server, name string, run func(context.Context, *mcp.CallToolRequest, In) (*mcp.CallToolResult, error)) {
	mcp.AddTool(server, &mcp.Tool{Name: name}, func(ctx context.Context, req *mcp.CallToolRequest, in In) (*mcp.CallToolResult, any, error) {
		result, err := run(ctx, req, in)
		return result, nil, err
	})
}

// asking adds a tool that asks by its result, which the SDK does otherwise for clients of older revisions.
func asking[Answer mcp.InputResponse](server *mcp.Server, name string, question mcp.InputRequest, then func(Answer) *mcp.CallToolResult) {
	tool(server, name, func(_ context.Context, req *mcp.CallToolRequest, _ none) (*mcp.CallToolResult, error) {
		if answer, ok := req.Params.InputResponses["question"].(Answer); ok {
			return then(answer), nil
		}
		return &mcp.CallToolResult{InputRequests: mcp.InputRequestMap{"question": question}, RequestState: "asked"}, nil
	})
}

// trace is where a tool and its client leave each other files, with this beginning.
type trace struct {
	Trace string `json:"trace"`
}

func steps(ctx context.Context, req *mcp.CallToolRequest, in trace) (*mcp.CallToolResult, error) {
	for step := 1.0; step <= 3; step++ {
		progress := &mcp.ProgressNotificationParams{ProgressToken: req.Params.GetProgressToken(), Progress: step, Total: 3}
		if err := req.Session.NotifyProgress(ctx, progress); err != nil {
			return nil, err
		}
	}
	return text("three steps"), exists(ctx, in.Trace+".seen")
}

func wait(ctx context.Context, _ *mcp.CallToolRequest, in trace) (*mcp.CallToolResult, error) {
	if err := os.WriteFile(in.Trace+".waits", nil, 0o600); err != nil {
		return nil, err
	}
	<-ctx.Done()
	return nil, errors.Join(ctx.Err(), os.WriteFile(in.Trace+".cancelled", nil, 0o600))
}

func makeServer(note string) *mcp.Server {
	subscribe := func(context.Context, *mcp.SubscribeRequest) error { return nil }
	unsubscribe := func(context.Context, *mcp.UnsubscribeRequest) error { return nil }
	options := &mcp.ServerOptions{SubscribeHandler: subscribe, UnsubscribeHandler: unsubscribe}
	server := mcp.NewServer(&mcp.Implementation{Name: "quick-start", Version: "1"}, options)

	tool(server, "echo", func(_ context.Context, _ *mcp.CallToolRequest, in struct {
		Text string `json:"text"`
	}) (*mcp.CallToolResult, error) {
		return text("%s", in.Text), nil
	})
	tool(server, "steps", steps)
	tool(server, "log", func(ctx context.Context, req *mcp.CallToolRequest, _ none) (*mcp.CallToolResult, error) {
		return text("logged"), req.Session.Log(ctx, &mcp.LoggingMessageParams{Level: "error", Data: "a line"})
	})
	tool(server, "wait", wait)
	asking(server, "ask", who, func(answer *mcp.ElicitResult) *mcp.CallToolResult {
		return text("hello %v, from %d", answer.Content["name"], os.Getpid())
	})
	asking(server, "sample", something, func(answer *mcp.CreateMessageWithToolsResult) *mcp.CallToolResult {
		return text("it said %s", answer.Content[0].(*mcp.TextContent).Text)
	})
	asking(server, "roots", &mcp.ListRootsParams{}, func(answer *mcp.ListRootsResult) *mcp.CallToolResult {
		var uris []string
		for _, root := range answer.Roots {
			uris = append(uris, root.URI)
		}
		return text("%s", strings.Join(uris, " "))
	})
	tool(server, "ask_live", func(ctx context.Context, req *mcp.CallToolRequest, _ none) (*mcp.CallToolResult, error) {
		answer, err := req.Session.Elicit(ctx, who)
		if err != nil {
			return nil, err
		}
		return text("hello %v, from %d", answer.Content["name"], os.Getpid()), nil
	})
	tool(server, "sample_live", func(ctx context.Context, req *mcp.CallToolRequest, _ none) (*mcp.CallToolResult, error) {
		answer, err := req.Session.CreateMessage(ctx, something)
		if err != nil {
			return nil, err
		}
		return text("it said %s", answer.Content.(*mcp.TextContent).Text), nil
	})
	tool(server, "fail", func(context.Context, *mcp.CallToolRequest, none) (*mcp.CallToolResult, error) {
		return nil, errors.New("it failed")
	})
	tool(server, "large", func(context.Context, *mcp.CallToolRequest, none) (*mcp.CallToolResult, error) {
		return text("%s", strings.Repeat("x", 2<<20)), nil
	})
	tool(server, "crash", func(context.Context, *mcp.CallToolRequest, none) (*mcp.CallToolResult, error) {
		os.Exit(1)
		return nil, nil
	})
	if note != "" {
		offer(server, note)
	}
	return server
}

// offer has the server tell its subscribers of each change of the note.
func offer(server *mcp.Server, note string) {
	uri := "file://" + note
	server.AddResource(&mcp.Resource{Name: "note", URI: uri}, func(context.Context, *mcp.ReadResourceRequest) (*mcp.ReadResourceResult, error) {
		return &mcp.ReadResourceResult{Contents: []*mcp.ResourceContents{{URI: uri, Text: "a note"}}}, nil
	})
	writtenAt := func() (at time.Time) {
		if about, err := os.Stat(note); err == nil {
			at = about.ModTime()
		}
		return at
	}
	go func() {
		seen := writtenAt()
		for range time.Tick(look) {
			now := writtenAt()
			if now != seen {
				_ = server.ResourceUpdated(context.Background(), &mcp.ResourceUpdatedNotificationParams{URI: uri})
			}
			seen = now
		}
	}()
}

// serve serves over stdio, or with a port over Streamable HTTP.
func serve(port, note string) error {
	server := makeServer(note)
	if port == "" || port == "stdio" {
		return server.Run(context.Background(), &mcp.StdioTransport{})
	}
	handler := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, nil)
	return http.ListenAndServe("127.0.0.1:"+port, handler)
}
