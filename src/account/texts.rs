//! What people read on the pages, in plain words. What an operator or a server is called is put in by the templates.

use crate::store::SavedBy;
use crate::tokens::Fault;

/// A page that says one thing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message {
    pub title: &'static str,
    pub sentence: &'static str,
}

// every page
pub(super) const SKIP: &str = "Skip to the content";
pub(super) const YOU_ARE: &str = "You are";
pub(super) const SIGN_OUT: &str = "Sign out";
pub(super) const PROMISE: &str = "What you save here is encrypted, is given only to the service you save it for, \
                                  only for your own requests, and is never shown again.";
pub(super) const ERROR: &str = "Error:";

// all servers
pub(super) const ACCOUNTS: &str = "Your accounts";
pub(super) const ACCOUNTS_LEAD: &str = "Connect a service once, and every application that you use with this bridge \
                                        works with your own account.";
pub(super) const NO_SERVERS: &str = "There is nothing here for you yet. Ask whoever runs this bridge.";
pub(super) const CONNECT: &str = "Connect";
pub(super) const MANAGE: &str = "Manage";
pub(super) const ADD: &str = "Add to an application";

// one server
pub(super) const ALL_ACCOUNTS: &str = "All accounts";
pub(super) const TOKEN_LABEL: &str = "Token";
pub(super) const TOKEN_HINT: &str = "Paste it as the service shows it. It is not shown again, not even to you.";
pub(super) const EXPIRES_LABEL: &str = "Last day (optional)";
pub(super) const EXPIRES_HINT: &str =
    "If the service gives an end date, enter it: this page reminds you a week before.";
pub(super) const EXPIRES_FAULT: &str = "Enter a date in the future, or leave this empty.";
pub(super) const HELP: &str = "Where to find it";
pub(super) const REPLACE: &str = "Replace";
pub(super) const REPLACE_TITLE: &str = "Replace the token";
pub(super) const REMOVE: &str = "Remove";
pub(super) const REMOVE_TITLE: &str = "Remove the token";
pub(super) const REMOVE_LEAD: &str = "Your applications cannot use this account until you connect it again. The token \
                                      stays valid at the service: revoke it there if nobody should use it any more.";
pub(super) const NEEDS_NONE: &str = "It needs no token of yours: there is nothing to connect.";
pub(super) const UNREADABLE_LEAD: &str = "Something is saved here that this bridge cannot read. Ask whoever runs it \
                                          before you remove it: it may be readable again.";

// trying what was pasted
pub(super) const TRIED: &str = "It is tried before it is saved. That may take up to 20 seconds.";
pub(super) const REFUSED_ADVICE: &str = "Nothing was saved. Look whether it is the right one, complete and still valid, \
                                         and paste it again.";
pub(super) const UNKNOWN_ADVICE: &str = "Nothing was saved. This does not mean that the token is wrong: wait a moment, \
                                         and paste it again.";
pub(super) const BUSY: &str = "You are already trying two tokens";
pub(super) const BUSY_ADVICE: &str = "Nothing was saved. Wait until one of them is done, and paste it again.";
pub(super) const ANYWAY: &str = "Save anyway";
pub(super) const ANYWAY_HINT: &str = "What you pasted was not kept: paste it again, then choose whether it is tried once \
                                      more or saved without that.";

// signing in at a service
pub(super) const LEADING: &str = "You are being led to";
pub(super) const GO_ON: &str = "Go on";
pub(super) const IN_ANOTHER_TAB: &str =
    "It opens in another tab; once you have signed in, that shows a page that cannot be opened. Come back here then.";
pub(super) const SIGN_IN_THERE: &str = "Sign in there";
pub(super) const ADDRESS_LABEL: &str = "The address of that page";
pub(super) const ADDRESS_FAULT: &str = "This is not it: copy the whole address, from the first letter to the last.";
pub(super) const ADDRESS_HINT: &str = "All that stands in the browser's address bar. It begins with";
pub(super) const BY_CODE: &str = "Sign in on another device";
pub(super) const ENTER_CODE: &str = "Enter this code, on any device, at";
pub(super) const OPEN_CODE: &str = "Open";
pub(super) const PICTURE: &str = "The same address for the camera of a telephone";
pub(super) const CODE_HINT: &str = "This page goes on by itself once you have done so.";
pub(super) const LEADS_TO: &str = "You sign in at";
pub(super) const ASKS_FOR: &str = "You will be asked to allow:";
pub(super) const CONNECT_AGAIN: &str = "Connect again";
pub(super) const DID_NOT_WORK: &str = "Did it not work?";
pub(super) const AS_NEW: &str = "Try again as a new application";
pub(super) const NEEDS_SIGN_IN: &str = "Needs sign-in";
pub(super) const SIGNED_IN_AS: &str = "Account";
pub(super) const MAY: &str = "Allowed";

pub(super) const DISCONNECT: &str = "Disconnect";
pub(super) const DISCONNECT_LEAD: &str = "Your applications cannot use this account until you connect it again, and the \
                                          service is asked to take back what it gave.";

// its standing
pub(super) const CONNECTED: &str = "Connected";
pub(super) const NOT_CONNECTED: &str = "Not connected";
pub(super) const NOTHING_NEEDED: &str = "Nothing to do";
pub(super) const CANNOT_BE_READ: &str = "Cannot be read";
pub(super) const ENDS_SOON: &str = "Expires soon";
pub(super) const ENDED: &str = "Needs another";
pub(super) const ENDED_LEAD: &str = "What you saved has expired. Get a new token from the service and paste it here.";
pub(super) const INCOMPLETE: &str = "Needs another value";
pub(super) const INCOMPLETE_LEAD: &str = "This service now asks for more than you have saved. Missing:";
pub(super) const INCOMPLETE_DO: &str = "Fill in all fields again.";
pub(super) const ENDS_SOON_LEAD: &str = "What you saved expires in a few days. Get a new token from the service and \
                                         paste it here.";
pub(super) const SINCE: &str = "Since";
pub(super) const GOOD_UNTIL: &str = "Good until";
pub(super) const HOW: &str = "How";
pub(super) const LAST_USED: &str = "Last used";
pub(super) const NEVER: &str = "Not yet";

// after a change
pub(super) const SAVED: &str = "is connected. You can go back to your application.";
pub(super) const SAW: &str = "It was tried, and this came back:";
pub(super) const REMOVED: &str = "is no longer connected. The token has been removed.";

// signing in
pub(super) const SIGN_IN: &str = "Sign in";
pub(super) const SIGN_IN_LEAD: &str = "Enter the bridge token that you were given by whoever runs this bridge: the one \
                                       that your applications use.";
pub(super) const SIGN_IN_LABEL: &str = "Your bridge token";
pub(super) const SIGN_IN_HINT: &str =
    "You stay signed in for 12 hours, or until you have not used these pages for one hour.";
pub(super) const SIGN_IN_FAULT: &str = "This is not a token that this bridge knows. Copy all of it, and only it.";

// applications
pub(super) const CLIENTS: &str = "Add it to your application";
pub(super) const CLIENTS_LEAD: &str = "The address of this server:";
pub(super) const OPEN_VSCODE: &str = "Add to VS Code";
pub(super) const OPEN_CURSOR: &str = "Add to Cursor";
pub(super) const CLAUDE_CODE: &str = "Claude Code, in a terminal";
pub(super) const CLAUDE_DESKTOP: &str = "Claude Desktop, and any application that starts programs: its configuration";
pub(super) const PUT_TOKEN: &str = "Where it says YOUR_TOKEN, or where an application asks for a token, use your \
                                    bridge token, not the one of the service. Cursor reads it from the variable \
                                    TOLLBRIDGE_TOKEN.";

// what goes no further
pub(super) const BACK: &str = "Go back";
pub(super) const WRONG_HOST: Message = Message {
    title: "This is not the address of the bridge",
    sentence: "Open the page under the address that you were given for it.",
};
pub(super) const NOBODY: Message = Message {
    title: "The bridge does not know who you are",
    sentence: "Open this page the way you open your other applications at work, or ask whoever runs the bridge.",
};
pub(super) const NOT_FOUND: Message =
    Message { title: "There is nothing here", sentence: "No server has this name, or it is not for you." };
pub(super) const NO_PAGE: Message = Message {
    title: "This address does not open by itself",
    sentence: "Nothing was changed. Go back, and use the button there.",
};
pub(super) const SENDER: Message = Message {
    title: "Nothing was changed",
    sentence: "Your browser did not confirm that this form came from our page. Open the page again at its https \
               address, and fill in the form there.",
};
pub(super) const STALE: Message = Message {
    title: "Nothing was changed",
    sentence: "The page is too old, or you have signed out meanwhile. Go back and fill the form in again.",
};
pub(super) const NO_FORM: Message =
    Message { title: "Nothing was changed", sentence: "What was sent is not the form of this page." };
pub(super) const TOO_LONG: Message =
    Message { title: "Nothing was changed", sentence: "This is longer than anything that this page asks for." };
pub(super) const LOST: Message =
    Message { title: "Nothing was changed", sentence: "The form did not arrive. Send it again." };
pub(super) const TOO_MANY: Message =
    Message { title: "Too many tries", sentence: "Nothing was changed. Wait a minute, then try again." };
pub(super) const UNREADABLE: Message = Message {
    title: "Not saved",
    sentence: "What you saved before cannot be read, so nothing new was saved over it. Ask whoever runs the bridge. If \
               they agree, remove it and save again.",
};
pub(super) const NOT_NOW: Message = Message {
    title: "Not available at the moment",
    sentence: "The bridge cannot look up what you have saved. Nothing was changed. Try again in a moment.",
};
pub(super) const SIGN_IN_OVER: Message = Message {
    title: "This sign-in has ended",
    sentence: "It has been answered already, or took longer than ten minutes. Nothing was changed. Start again.",
};
pub(super) const OTHER_BROWSER: Message = Message {
    title: "This is another browser, or another user",
    sentence: "This sign-in was begun elsewhere, and goes on there alone. Nothing was changed.",
};
pub(super) const OTHER_ISSUER: Message = Message {
    title: "The answer came from somebody else",
    sentence: "This sign-in has ended, and nothing of the answer was used. Start again; if it happens again, tell whoever \
               runs this bridge.",
};
pub(super) const NOT_SAVED: Message =
    Message { title: "Not saved", sentence: "The bridge could not save it. Try again in a moment." };
pub(super) const NOT_REMOVED: Message =
    Message { title: "Not removed", sentence: "The bridge could not remove it. Try again in a moment." };
pub(super) const NOT_SIGNED_OUT: Message = Message {
    title: "Not signed out",
    sentence: "The bridge could not end your session. Try again in a moment, or close the browser.",
};

/// How something was saved.
pub(super) fn how(saved_by: SavedBy) -> &'static str {
    match saved_by {
        SavedBy::Page => "Pasted on this page",
        SavedBy::Cli => "Saved by whoever runs this bridge",
        SavedBy::Api => "Saved by a program",
        SavedBy::SignIn => "You signed in at the service",
    }
}

/// What is wrong with what was pasted into a field, and what to do.
pub(super) fn fault(fault: Fault) -> &'static str {
    match fault {
        Fault::Missing | Fault::Blank => "Paste it here.",
        Fault::TooLong => "This is longer than any token: at most 16 KiB are taken.",
        Fault::Control => "This holds a line break or another character that no token has. Copy the token alone.",
        Fault::Format => {
            "This does not look like what the service gives. Look whether you have copied all of it, and only it."
        }
        Fault::Bearer => "Paste only what comes after “Bearer”.",
        Fault::Assignment => "Paste only what comes after the equals sign, without quotes.",
        Fault::Quotes => "Paste only what stands between the quotes.",
        Fault::Blanks => "There is a blank before or after it. Paste it without.",
        Fault::Twice | Fault::Unknown => "This is not what the page asks for.",
    }
}
