// A server as the documentation of the official Go SDK has it, over stdio: both eras.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

var question = &mcp.ElicitParams{
	Message: "Who is it?",
	RequestedSchema: &jsonschema.Schema{
		Type:       "object",
		Properties: map[string]*jsonschema.Schema{"name": {Type: "string"}},
	},
}

func text(format string, values ...any) *mcp.CallToolResult {
	return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: fmt.Sprintf(format, values...)}}}
}

// ask asks in the middle of the call.
func ask(ctx context.Context, req *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, any, error) {
	answer, err := req.Session.Elicit(ctx, question)
	if err != nil {
		return nil, nil, err
	}
	return text("hello %v, from %d", answer.Content["name"], os.Getpid()), nil, nil
}

// sample has the client's model say something.
func sample(ctx context.Context, req *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, any, error) {
	message := &mcp.SamplingMessage{Role: "user", Content: &mcp.TextContent{Text: "Say something."}}
	answer, err := req.Session.CreateMessage(ctx, &mcp.CreateMessageParams{MaxTokens: 10, Messages: []*mcp.SamplingMessage{message}})
	if err != nil {
		return nil, nil, err
	}
	return text("it said %s", answer.Content.(*mcp.TextContent).Text), nil, nil
}

// resolve asks by its result, which the SDK does otherwise for clients of older revisions.
func resolve(_ context.Context, req *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, any, error) {
	if len(req.Params.InputResponses) == 0 {
		return &mcp.CallToolResult{InputRequests: mcp.InputRequestMap{"name": question}, RequestState: "asked"}, nil, nil
	}
	answer := req.Params.InputResponses["name"].(*mcp.ElicitResult)
	return text("hello %v, from %d", answer.Content["name"], os.Getpid()), nil, nil
}

func main() {
	server := mcp.NewServer(&mcp.Implementation{Name: "quick-start", Version: "1"}, nil)
	mcp.AddTool(server, &mcp.Tool{Name: "ask"}, ask)
	mcp.AddTool(server, &mcp.Tool{Name: "sample"}, sample)
	mcp.AddTool(server, &mcp.Tool{Name: "resolve"}, resolve)
	if err := server.Run(context.Background(), &mcp.StdioTransport{}); err != nil {
		log.Fatal(err)
	}
}
