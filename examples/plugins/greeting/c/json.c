#include "json.h"

#include <stdlib.h>
#include <string.h>

static void skip_space(const char **at, const char *end) {
    while (*at < end && strchr(" \t\r\n{,:", **at)) (*at)++;
}

static unsigned hex(const char *at) {
    unsigned number = 0;
    for (int i = 0; i < 4; i++) {
        char c = at[i];
        number = number * 16 + (c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
    }
    return number;
}

static char *put_utf8(char *to, unsigned c) {
    if (c < 0x80) {
        *to++ = c;
    } else if (c < 0x800) {
        *to++ = 0xc0 | c >> 6;
        *to++ = 0x80 | (c & 0x3f);
    } else if (c < 0x10000) {
        *to++ = 0xe0 | c >> 12;
        *to++ = 0x80 | (c >> 6 & 0x3f);
        *to++ = 0x80 | (c & 0x3f);
    } else {
        *to++ = 0xf0 | c >> 18;
        *to++ = 0x80 | (c >> 12 & 0x3f);
        *to++ = 0x80 | (c >> 6 & 0x3f);
        *to++ = 0x80 | (c & 0x3f);
    }
    return to;
}

// *at is behind the opening quote, and comes to be behind the closing one.
static char *string(const char **at, const char *end) {
    // What is escaped is never shorter than what it means.
    char *text = malloc(end - *at + 1), *to = text;
    if (!text) abort();
    while (*at < end && **at != '"') {
        char c = *(*at)++;
        if (c != '\\') {
            *to++ = c;
            continue;
        }
        if (*at == end) break;
        c = *(*at)++;
        if (c == 'u' && end - *at >= 4) {
            unsigned point = hex(*at);
            *at += 4;
            if (point >= 0xd800 && point < 0xdc00 && end - *at >= 6) {
                point = 0x10000 + ((point - 0xd800) << 10) + (hex(*at + 2) - 0xdc00);
                *at += 6;
            }
            to = put_utf8(to, point);
        } else {
            static const char from[] = "bfnrt", into[] = "\b\f\n\r\t";
            const char *known = strchr(from, c);
            *to++ = known ? into[known - from] : c;
        }
    }
    if (*at < end) (*at)++;
    *to = 0;
    return text;
}

// Goes past a value that is no string, whatever it holds.
static void skip_value(const char **at, const char *end) {
    int depth = 0;
    while (*at < end) {
        char c = **at;
        if (depth == 0 && (c == ',' || c == '}')) return;
        (*at)++;
        if (c == '"') free(string(at, end));
        if (c == '{' || c == '[') depth++;
        if (c == '}' || c == ']') depth--;
    }
}

bool json_next(const char **at, const char *end, json_member_t *member) {
    skip_space(at, end);
    if (*at == end || **at != '"') return false;
    (*at)++;
    member->key = string(at, end);
    skip_space(at, end);
    member->value = NULL;
    if (*at < end && **at == '"') {
        (*at)++;
        member->value = string(at, end);
    } else {
        skip_value(at, end);
    }
    return true;
}
