// Package plugin greets at /hello, and says hello in a header everywhere else.
package plugin

import (
	"encoding/json"
	"strings"

	lifecycle "greeting/internal/wit/adit_plugin_lifecycle"
	request "greeting/internal/wit/adit_plugin_request_filter"
	response "greeting/internal/wit/adit_plugin_response_filter"
	types "greeting/internal/wit/adit_plugin_types"
	"greeting/internal/wit/wit"
)

// An instance is configured once, before its first request.
var text = "hello"

func Describe() lifecycle.Manifest {
	return lifecycle.Manifest{Name: "greeting", Version: "0.1.0", RequestHeaders: []string{"x-name"}}
}

// Configure takes the `config` table of the host's document, as JSON.
func Configure(config string) wit.Result[wit.Unit, []types.Fault] {
	var settings map[string]any
	var faults []types.Fault
	if err := json.Unmarshal([]byte(config), &settings); err != nil {
		faults = append(faults, types.Fault{Code: "/", Message: err.Error()})
	}
	for key, value := range settings {
		given, isString := value.(string)
		switch {
		case key != "text":
			faults = append(faults, types.Fault{Code: "/" + key, Message: "is not known"})
		case !isString:
			faults = append(faults, types.Fault{Code: "/text", Message: "is not a string"})
		default:
			text = given
		}
	}
	if len(faults) > 0 {
		return wit.Err[wit.Unit](faults)
	}
	return wit.Ok[wit.Unit, []types.Fault](wit.Unit{})
}

func OnRequest(head types.RequestHead) wit.Result[request.RequestAction, types.Fault] {
	if path, _, _ := strings.Cut(head.PathWithQuery, "?"); path == "/hello" {
		name := "world"
		if len(head.Headers) > 0 {
			name = head.Headers[0].F1
		}
		return act(request.MakeRequestActionRespond(types.Reply{
			Status:  200,
			Headers: []types.Header{{F0: "content-type", F1: "text/plain; charset=utf-8"}},
			Body:    []byte(text + ", " + name + "!\n"),
		}))
	}
	return act(request.MakeRequestActionEdit(types.RequestEdits{Headers: []types.HeaderOp{setHeader()}}))
}

func OnResponse(types.ResponseHead) wit.Result[response.ResponseAction, types.Fault] {
	edits := types.ResponseEdits{Headers: []types.HeaderOp{setHeader()}}
	return act(response.MakeResponseActionEdit(edits))
}

func setHeader() types.HeaderOp {
	return types.MakeHeaderOpSet(types.Header{F0: "x-greeting", F1: text})
}

func act[Action any](action Action) wit.Result[Action, types.Fault] {
	return wit.Ok[Action, types.Fault](action)
}
