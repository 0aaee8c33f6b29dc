/* A PKCS#11 module that wraps SoftHSM and bends it, so that tests meet the manners of other tokens.
 *
 * Built by the lab (src/quirk.rs) with -DREAL_MODULE="...". What it bends stands in the file "quirks" beside SoftHSM's
 * configuration ($SOFTHSM2_CONF), one "name value..." a line, read again at each call, so a test changes it while the token is
 * in use. What was called is appended to "quirk.log" there.
 *
 *   fail FUNCTION RV [EPOCHS]   FUNCTION returns RV (0x5); with EPOCHS only until C_Initialize was called more often than that
 *   lie FUNCTION RV [EPOCHS]    the same, after having done what was asked
 *   hang FUNCTION               FUNCTION does not return as long as the line is there
 *   delay FUNCTION MS           FUNCTION takes MS milliseconds longer
 *   max_sessions N              no more than N sessions at once; ulMaxSessionCount does not say so ...
 *   declare_sessions N          ... unless this does
 *   max_rw_sessions N           no more than N read/write sessions at once
 *   no_read_only                read-only sessions are refused
 *   local_false                 CKA_LOCAL of each key is false
 *   always_authenticate         CKA_ALWAYS_AUTHENTICATE of each key is true
 *   sign_wrong                  a bit of each signature is flipped
 *   endless_signature           C_Sign says that a signature takes all the memory there can be
 *   own_id                      a new key gets a CKA_ID of the token's choice
 *   own_label                   a new key gets a CKA_LABEL of the token's choice
 *   one_handle N                the first N key pairs of the process: one handle is told for both halves
 *   old_handles N               the first N key pairs of the process: the handles of the pair before are told for the new one
 *   max_key_bits N              C_GetMechanismInfo: no mechanism has longer keys
 *   utc_time TEXT               C_GetTokenInfo: CKF_CLOCK_ON_TOKEN and this text as utcTime
 *   token_flags N               C_GetTokenInfo: these flags, decimal, beside its own
 *   nul_label                   C_GetTokenInfo: label filled with NUL
 *   protected_path PIN          CKF_PROTECTED_AUTHENTICATION_PATH; C_Login without a PIN logs in with this one
 *   no_login PIN                CKF_LOGIN_REQUIRED is clear and C_Login fails; private objects are there all the same
 *   gone                        the device was removed
 *
 * Source of types and of the order of functions: OASIS PKCS #11 v2.40, pkcs11t.h, pkcs11f.h.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef unsigned long CK_ULONG, CK_RV, CK_SLOT_ID, CK_SESSION, CK_OBJECT, CK_FLAGS;
typedef unsigned char CK_BYTE;
typedef struct { CK_ULONG type; void *value; CK_ULONG length; } CK_ATTRIBUTE;
typedef struct { CK_ULONG mechanism; void *parameter; CK_ULONG length; } CK_MECHANISM;
typedef struct { CK_SLOT_ID slot; CK_ULONG state; CK_FLAGS flags; CK_ULONG error; } CK_SESSION_INFO;
typedef struct {
    CK_BYTE label[32], manufacturer[32], model[16], serial[16];
    CK_FLAGS flags;
    CK_ULONG max_sessions, sessions, max_rw_sessions, rw_sessions, max_pin, min_pin;
    CK_ULONG public_memory, free_public_memory, private_memory, free_private_memory;
    CK_BYTE hardware[2], firmware[2], utc_time[16];
} CK_TOKEN_INFO;

typedef struct { CK_ULONG least, most; CK_FLAGS flags; } CK_MECHANISM_INFO;

enum { FUNCTIONS = 68 };
typedef struct { CK_BYTE version[2]; void *f[FUNCTIONS]; } FUNCTION_LIST;
/* Places in the function list. */
enum {
    INITIALIZE = 0, FINALIZE = 1, GET_FUNCTION_LIST = 3, GET_SLOT_LIST = 4, GET_TOKEN_INFO = 6,
    GET_MECHANISM_INFO = 8, OPEN_SESSION = 12,
    CLOSE_SESSION = 13, CLOSE_ALL_SESSIONS = 14, GET_SESSION_INFO = 15, LOGIN = 18, DESTROY_OBJECT = 22,
    GET_ATTRIBUTE_VALUE = 24, SET_ATTRIBUTE_VALUE = 25, FIND_OBJECTS_INIT = 26, SIGN_INIT = 42, SIGN = 43,
    GENERATE_KEY_PAIR = 59
};
enum {
    OK = 0, FUNCTION_FAILED = 6, ARGUMENTS_BAD = 7, DEVICE_REMOVED = 0x32, SESSION_COUNT = 0xB1, PIN_INCORRECT = 0xA0,
    SESSION_HANDLE_INVALID = 0xB3
};
enum { CKF_RW_SESSION = 2, CKF_LOGIN_REQUIRED = 4, CKF_CLOCK_ON_TOKEN = 0x40, CKF_PROTECTED_PATH = 0x100 };
enum { CKA_LABEL = 3, CKA_ID = 0x102, CKA_LOCAL = 0x163, CKA_ALWAYS_AUTHENTICATE = 0x202 };

static FUNCTION_LIST real, ours;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned epochs, one_handles, old_handles, own_names;
static CK_OBJECT last_public, last_private;
static struct { CK_SESSION handle; int writable; } open_sessions[256];

static void beside_configuration(char *path, size_t size, const char *name) {
    const char *configuration = getenv("SOFTHSM2_CONF");
    const char *slash = configuration ? strrchr(configuration, '/') : NULL;
    snprintf(path, size, "%.*s/%s", slash ? (int)(slash - configuration) : 1, slash ? configuration : ".", name);
}

static void record(const char *text) {
    char path[4096];
    beside_configuration(path, sizeof path, "quirk.log");
    FILE *log = fopen(path, "a");
    if (log) {
        fprintf(log, "%s\n", text);
        fclose(log);
    }
}

/* The rest of the line that begins with these words; 0 if there is none. */
static int quirk(const char *words, char rest[256]) {
    char path[4096], line[256], scratch[256];
    if (!rest)
        rest = scratch;
    size_t length = strlen(words);
    beside_configuration(path, sizeof path, "quirks");
    FILE *file = fopen(path, "r");
    int found = 0;
    while (file && !found && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        if (!strncmp(line, words, length) && (line[length] == ' ' || !line[length])) {
            strcpy(rest, line[length] ? line + length + 1 : "");
            found = 1;
        }
    }
    if (file)
        fclose(file);
    return found;
}

static unsigned long number(const char *name, unsigned long otherwise) {
    char rest[256];
    return quirk(name, rest) ? strtoul(rest, NULL, 0) : otherwise;
}

static void pause_ms(unsigned long ms) {
    struct timespec time = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
    nanosleep(&time, NULL);
}

/* What "fail" or "lie" says about this function; OK if nothing, or nothing any more. */
static CK_RV told(const char *how, const char *function) {
    char words[128], rest[256];
    unsigned long code = 0, until = ~0UL;
    snprintf(words, sizeof words, "%s %s", how, function);
    if (!quirk(words, rest) || sscanf(rest, "%li %lu", &code, &until) < 1 || epochs > until)
        return OK;
    return code;
}

/* What every bent function does first. */
static CK_RV before(const char *function) {
    char words[128];
    snprintf(words, sizeof words, "delay %s", function);
    pause_ms(number(words, 0));
    snprintf(words, sizeof words, "hang %s", function);
    while (quirk(words, NULL))
        pause_ms(20);
    if (quirk("gone", NULL) && strcmp(function, "C_Initialize") && strcmp(function, "C_Finalize"))
        return DEVICE_REMOVED;
    return told("fail", function);
}

#define CALL(place, type, ...) ((CK_RV(*) type)real.f[place])(__VA_ARGS__)
#define BEFORE(function)                                                                                                     \
    do {                                                                                                                     \
        CK_RV code = before(function);                                                                                       \
        if (code)                                                                                                            \
            return code;                                                                                                     \
    } while (0)

static CK_RV q_initialize(void *arguments) {
    record("C_Initialize");
    epochs++;
    BEFORE("C_Initialize");
    return CALL(INITIALIZE, (void *), arguments);
}

static CK_RV q_finalize(void *reserved) {
    pthread_mutex_lock(&lock);
    memset(open_sessions, 0, sizeof open_sessions);
    last_public = last_private = 0;
    pthread_mutex_unlock(&lock);
    return CALL(FINALIZE, (void *), reserved);
}

static CK_RV q_get_slot_list(CK_BYTE present, CK_SLOT_ID *slots, CK_ULONG *count) {
    if (quirk("gone", NULL) && present) {
        *count = 0;
        return OK;
    }
    return CALL(GET_SLOT_LIST, (CK_BYTE, CK_SLOT_ID *, CK_ULONG *), present, slots, count);
}

static CK_RV q_get_token_info(CK_SLOT_ID slot, CK_TOKEN_INFO *info) {
    char rest[256];
    BEFORE("C_GetTokenInfo");
    CK_RV code = CALL(GET_TOKEN_INFO, (CK_SLOT_ID, CK_TOKEN_INFO *), slot, info);
    if (code)
        return code;
    info->max_sessions = number("declare_sessions", info->max_sessions);
    if (quirk("utc_time", rest)) {
        info->flags |= CKF_CLOCK_ON_TOKEN;
        strncpy((char *)info->utc_time, rest, sizeof info->utc_time);
    }
    if (quirk("nul_label", NULL))
        for (int i = sizeof info->label - 1; i >= 0 && info->label[i] == ' '; i--)
            info->label[i] = 0;
    info->flags |= number("token_flags", 0);
    if (quirk("protected_path", NULL))
        info->flags |= CKF_PROTECTED_PATH;
    if (quirk("no_login", NULL))
        info->flags &= ~(CK_FLAGS)CKF_LOGIN_REQUIRED;
    return OK;
}

static CK_RV log_in(CK_SESSION session, const char *pin) {
    return CALL(LOGIN, (CK_SESSION, CK_ULONG, const char *, CK_ULONG), session, 1UL, pin, strlen(pin));
}

static CK_RV q_open_session(CK_SLOT_ID slot, CK_FLAGS flags, void *application, void *notify, CK_SESSION *session) {
    char rest[256];
    unsigned long all = 0, writable = 0;
    BEFORE("C_OpenSession");
    if (quirk("no_read_only", NULL) && !(flags & CKF_RW_SESSION))
        return FUNCTION_FAILED;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < 256; i++) {
        all += open_sessions[i].handle != 0;
        writable += open_sessions[i].handle && open_sessions[i].writable;
    }
    CK_RV code = OK;
    if (all >= number("max_sessions", 256))
        code = SESSION_COUNT;
    if (flags & CKF_RW_SESSION && writable >= number("max_rw_sessions", 256))
        code = SESSION_COUNT;
    if (!code)
        code = CALL(OPEN_SESSION, (CK_SLOT_ID, CK_FLAGS, void *, void *, CK_SESSION *), slot, flags, application, notify,
                    session);
    for (int i = 0; i < 256 && !code; i++)
        if (!open_sessions[i].handle) {
            open_sessions[i].handle = *session;
            open_sessions[i].writable = !!(flags & CKF_RW_SESSION);
            break;
        }
    pthread_mutex_unlock(&lock);
    record(code == SESSION_COUNT ? "C_OpenSession refused" : flags & CKF_RW_SESSION ? "C_OpenSession rw" : "C_OpenSession ro");
    if (!code && quirk("no_login", rest))
        log_in(*session, rest);
    return code;
}

static CK_RV q_close_session(CK_SESSION session) {
    pthread_mutex_lock(&lock);
    for (int i = 0; i < 256; i++)
        if (open_sessions[i].handle == session)
            open_sessions[i].handle = 0;
    pthread_mutex_unlock(&lock);
    return CALL(CLOSE_SESSION, (CK_SESSION), session);
}

static CK_RV q_get_session_info(CK_SESSION session, CK_SESSION_INFO *info) {
    BEFORE("C_GetSessionInfo");
    CK_RV code = CALL(GET_SESSION_INFO, (CK_SESSION, CK_SESSION_INFO *), session, info);
    /* Read-only public, or read/write public. */
    if (!code && quirk("no_login", NULL))
        info->state = info->flags & CKF_RW_SESSION ? 2 : 0;
    return code;
}

static CK_RV q_login(CK_SESSION session, CK_ULONG user, CK_BYTE *pin, CK_ULONG length) {
    char rest[256];
    record(pin ? "C_Login pin" : "C_Login null");
    BEFORE("C_Login");
    if (quirk("no_login", NULL))
        return FUNCTION_FAILED;
    if (quirk("protected_path", rest))
        return pin ? ARGUMENTS_BAD : log_in(session, rest);
    return CALL(LOGIN, (CK_SESSION, CK_ULONG, CK_BYTE *, CK_ULONG), session, user, pin, length);
}

static CK_RV q_destroy_object(CK_SESSION session, CK_OBJECT object) {
    BEFORE("C_DestroyObject");
    return CALL(DESTROY_OBJECT, (CK_SESSION, CK_OBJECT), session, object);
}

static CK_RV q_get_attribute_value(CK_SESSION session, CK_OBJECT object, CK_ATTRIBUTE *template, CK_ULONG count) {
    BEFORE("C_GetAttributeValue");
    CK_RV code = CALL(GET_ATTRIBUTE_VALUE, (CK_SESSION, CK_OBJECT, CK_ATTRIBUTE *, CK_ULONG), session, object, template, count);
    for (CK_ULONG i = 0; i < count; i++) {
        if (!template[i].value || template[i].length != 1)
            continue;
        if (template[i].type == CKA_LOCAL && quirk("local_false", NULL))
            *(CK_BYTE *)template[i].value = 0;
        if (template[i].type == CKA_ALWAYS_AUTHENTICATE && quirk("always_authenticate", NULL))
            *(CK_BYTE *)template[i].value = 1;
    }
    return code;
}

static CK_RV q_find_objects_init(CK_SESSION session, CK_ATTRIBUTE *template, CK_ULONG count) {
    BEFORE("C_FindObjectsInit");
    return CALL(FIND_OBJECTS_INIT, (CK_SESSION, CK_ATTRIBUTE *, CK_ULONG), session, template, count);
}

static CK_RV q_sign_init(CK_SESSION session, CK_MECHANISM *mechanism, CK_OBJECT key) {
    BEFORE("C_SignInit");
    return CALL(SIGN_INIT, (CK_SESSION, CK_MECHANISM *, CK_OBJECT), session, mechanism, key);
}

static CK_RV q_sign(CK_SESSION session, CK_BYTE *data, CK_ULONG length, CK_BYTE *signature, CK_ULONG *signed_length) {
    record("C_Sign");
    BEFORE("C_Sign");
    CK_RV code = CALL(SIGN, (CK_SESSION, CK_BYTE *, CK_ULONG, CK_BYTE *, CK_ULONG *), session, data, length, signature,
                      signed_length);
    if (!code && !signature && quirk("endless_signature", NULL))
        *signed_length = ~0UL;
    if (!code && signature && quirk("sign_wrong", NULL))
        signature[*signed_length - 1] ^= 1;
    return code;
}

static void rename_key(CK_SESSION session, CK_OBJECT key, CK_ULONG type, const char *format, unsigned value) {
    char name[32];
    snprintf(name, sizeof name, format, (unsigned)getpid(), value);
    CK_ATTRIBUTE attribute = {type, name, strlen(name)};
    CALL(SET_ATTRIBUTE_VALUE, (CK_SESSION, CK_OBJECT, CK_ATTRIBUTE *, CK_ULONG), session, key, &attribute, 1UL);
}

static CK_RV q_generate_key_pair(CK_SESSION session, CK_MECHANISM *mechanism, CK_ATTRIBUTE *public, CK_ULONG public_count,
                                 CK_ATTRIBUTE *private, CK_ULONG private_count, CK_OBJECT *public_key,
                                 CK_OBJECT *private_key) {
    record("C_GenerateKeyPair");
    BEFORE("C_GenerateKeyPair");
    CK_RV code = CALL(GENERATE_KEY_PAIR,
                      (CK_SESSION, CK_MECHANISM *, CK_ATTRIBUTE *, CK_ULONG, CK_ATTRIBUTE *, CK_ULONG, CK_OBJECT *,
                       CK_OBJECT *),
                      session, mechanism, public, public_count, private, private_count, public_key, private_key);
    if (code)
        return code;
    unsigned name = ++own_names;
    for (int half = 0; half < 2; half++) {
        CK_OBJECT key = half ? *private_key : *public_key;
        if (quirk("own_id", NULL))
            rename_key(session, key, CKA_ID, "own-%u-%u", name);
        if (quirk("own_label", NULL))
            rename_key(session, key, CKA_LABEL, "own label %u %u", name);
    }
    if (one_handles < number("one_handle", 0)) {
        one_handles++;
        *private_key = *public_key;
    }
    if (last_public && old_handles < number("old_handles", 0)) {
        old_handles++;
        *public_key = last_public;
        *private_key = last_private;
    }
    last_public = *public_key;
    last_private = *private_key;
    return told("lie", "C_GenerateKeyPair");
}

static CK_RV q_get_mechanism_info(CK_SLOT_ID slot, CK_ULONG mechanism, CK_MECHANISM_INFO *info) {
    CK_RV code = CALL(GET_MECHANISM_INFO, (CK_SLOT_ID, CK_ULONG, CK_MECHANISM_INFO *), slot, mechanism, info);
    CK_ULONG most = number("max_key_bits", info->most);
    if (!code && info->most > most)
        info->most = most;
    return code;
}

CK_RV C_GetFunctionList(FUNCTION_LIST **list) {
    if (!real.f[INITIALIZE]) {
        void *module = dlopen(REAL_MODULE, RTLD_NOW | RTLD_LOCAL);
        CK_RV (*get)(FUNCTION_LIST **) = module ? (CK_RV(*)(FUNCTION_LIST **))dlsym(module, "C_GetFunctionList") : NULL;
        FUNCTION_LIST *found = NULL;
        if (!get || get(&found))
            return FUNCTION_FAILED;
        real = *found;
        ours = real;
        ours.f[INITIALIZE] = q_initialize;
        ours.f[FINALIZE] = q_finalize;
        ours.f[GET_FUNCTION_LIST] = C_GetFunctionList;
        ours.f[GET_SLOT_LIST] = q_get_slot_list;
        ours.f[GET_TOKEN_INFO] = q_get_token_info;
        ours.f[GET_MECHANISM_INFO] = q_get_mechanism_info;
        ours.f[OPEN_SESSION] = q_open_session;
        ours.f[CLOSE_SESSION] = q_close_session;
        ours.f[GET_SESSION_INFO] = q_get_session_info;
        ours.f[LOGIN] = q_login;
        ours.f[DESTROY_OBJECT] = q_destroy_object;
        ours.f[GET_ATTRIBUTE_VALUE] = q_get_attribute_value;
        ours.f[FIND_OBJECTS_INIT] = q_find_objects_init;
        ours.f[SIGN_INIT] = q_sign_init;
        ours.f[SIGN] = q_sign;
        ours.f[GENERATE_KEY_PAIR] = q_generate_key_pair;
    }
    *list = &ours;
    return OK;
}
