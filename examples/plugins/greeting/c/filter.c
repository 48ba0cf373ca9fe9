// Greets at /hello, and says hello in a header everywhere else.

#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "plugin.h" // made from wit/ by the build

#define HELLO "/hello"

// What is handed to the host is freed with the generated functions, so it must have been allocated.
// An instance is configured once, before its first request.
static const char *text = "hello";

static void *allocate(size_t size) {
    void *memory = malloc(size);
    if (!memory) abort();
    return memory;
}

static char *concat(const char *a, const char *b) {
    char *both = allocate(strlen(a) + strlen(b) + 1);
    return strcat(strcpy(both, a), b);
}

void exports_adit_plugin_lifecycle_describe(exports_adit_plugin_lifecycle_manifest_t *manifest) {
    memset(manifest, 0, sizeof *manifest);
    plugin_string_dup(&manifest->name, "greeting");
    plugin_string_dup(&manifest->version, "0.1.0");
    manifest->request_headers.ptr = allocate(sizeof(plugin_string_t));
    manifest->request_headers.len = 1;
    plugin_string_dup(&manifest->request_headers.ptr[0], "x-name");
}

// Takes the `config` table of the host's document, as JSON. False says that it is refused.
bool exports_adit_plugin_lifecycle_configure(plugin_string_t *config,
                                             exports_adit_plugin_lifecycle_list_fault_t *faults) {
    faults->ptr = NULL;
    faults->len = 0;
    const char *at = (const char *)config->ptr, *end = at + config->len;
    json_member_t member;
    while (json_next(&at, end, &member)) {
        bool known = strcmp(member.key, "text") == 0;
        if (known && member.value) {
            text = member.value;
        } else {
            size_t size = (faults->len + 1) * sizeof *faults->ptr;
            faults->ptr = realloc(faults->ptr, size);
            if (!faults->ptr) abort();
            adit_plugin_types_fault_t *fault = &faults->ptr[faults->len++];
            char *place = concat("/", member.key);
            plugin_string_dup(&fault->code, place);
            plugin_string_dup(&fault->message, known ? "is not a string" : "is not known");
            free(place);
            free(member.value);
        }
        free(member.key);
    }
    plugin_string_free(config);
    return faults->len == 0;
}

static bool asks_for_hello(const plugin_string_t *path) {
    size_t length = sizeof HELLO - 1;
    return path->len >= length && memcmp(path->ptr, HELLO, length) == 0 &&
           (path->len == length || path->ptr[length] == '?');
}

static void set_header(adit_plugin_types_list_header_op_t *ops) {
    ops->ptr = allocate(sizeof *ops->ptr);
    ops->len = 1;
    ops->ptr[0].tag = ADIT_PLUGIN_TYPES_HEADER_OP_SET;
    plugin_string_dup(&ops->ptr[0].val.set.f0, "x-greeting");
    plugin_string_dup(&ops->ptr[0].val.set.f1, text);
}

bool exports_adit_plugin_request_filter_on_request(
    exports_adit_plugin_request_filter_request_head_t *head,
    exports_adit_plugin_request_filter_request_action_t *action,
    exports_adit_plugin_request_filter_fault_t *fault) {
    memset(action, 0, sizeof *action);
    if (asks_for_hello(&head->path_with_query)) {
        plugin_string_t name;
        plugin_string_set(&name, "world");
        if (head->headers.len > 0) name = head->headers.ptr[0].f1;

        adit_plugin_types_reply_t *reply = &action->val.respond;
        action->tag = EXPORTS_ADIT_PLUGIN_REQUEST_FILTER_REQUEST_ACTION_RESPOND;
        reply->status = 200;
        reply->headers.ptr = allocate(sizeof *reply->headers.ptr);
        reply->headers.len = 1;
        plugin_string_dup(&reply->headers.ptr[0].f0, "content-type");
        plugin_string_dup(&reply->headers.ptr[0].f1, "text/plain; charset=utf-8");
        size_t length = strlen(text);
        reply->body.len = length + 2 + name.len + 2;
        uint8_t *to = reply->body.ptr = allocate(reply->body.len);
        memcpy(to, text, length);
        memcpy(to + length, ", ", 2);
        memcpy(to + length + 2, name.ptr, name.len);
        memcpy(to + length + 2 + name.len, "!\n", 2);
    } else {
        action->tag = EXPORTS_ADIT_PLUGIN_REQUEST_FILTER_REQUEST_ACTION_EDIT;
        set_header(&action->val.edit.headers);
    }
    adit_plugin_types_request_head_free(head);
    return true;
}

bool exports_adit_plugin_response_filter_on_response(
    exports_adit_plugin_response_filter_response_head_t *head,
    exports_adit_plugin_response_filter_response_action_t *action,
    exports_adit_plugin_response_filter_fault_t *fault) {
    memset(action, 0, sizeof *action);
    action->tag = EXPORTS_ADIT_PLUGIN_RESPONSE_FILTER_RESPONSE_ACTION_EDIT;
    set_header(&action->val.edit.headers);
    adit_plugin_types_response_head_free(head);
    return true;
}
