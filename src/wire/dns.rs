//! DNS (RFC 1035): packets of port 53 to messages, and answers to what they say.
//!
//! Messages are read with the `domain` crate, in place. Anybody may have sent
//! them, so the work for each is bounded: names by the crate (255 bytes, 255
//! compression pointers, each backwards), records by [`RECORDS`], chains of CNAMEs
//! by [`CHAIN`].

#[cfg(test)]
pub(crate) mod build;
pub mod packet;

use std::hash::Hasher;
use std::net::IpAddr;

use domain::base::iana::{Class, Opcode, Rcode, Rtype};
use domain::base::name::ToLabelIter;
use domain::base::{self, ParsedName, ParsedRecord, Question};
use domain::rdata::{A, Aaaa, Cname};

use crate::model::{Answer, Name, Resolution};

/// Records read of an answer; what is behind them is not looked at. A full UDP
/// answer of addresses has some 80 without EDNS beyond 1,232 bytes.
pub const RECORDS: usize = 256;

/// The most names in a chain, the question's included. Resolvers give up at
/// about as many.
pub const CHAIN: usize = 12;

/// A TTL with the highest bit set is none (RFC 2181 section 8).
const LONGEST_TTL: u32 = i32::MAX as u32;

/// Why bytes are no message that can be matched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    /// Shorter than a header, or cut within its question.
    Short,
    /// Not exactly one question.
    Questions,
    /// Records that cannot be read, though nothing was cut off.
    Record,
    /// A chain of CNAMEs that ends nowhere.
    Chain,
}

impl Malformed {
    /// In words, for the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Malformed::Short => "cut within its header or question",
            Malformed::Questions => "not exactly one question",
            Malformed::Record => "a record that cannot be read",
            Malformed::Chain => "a chain of CNAMEs that ends nowhere",
        }
    }
}

/// A message with one question.
#[derive(Debug)]
pub struct Message<'a> {
    message: &'a base::Message<[u8]>,
    question: Question<ParsedName<&'a [u8]>>,
}

impl<'a> Message<'a> {
    /// Reads header and question.
    ///
    /// # Errors
    /// See [`Malformed`].
    pub fn read(bytes: &'a [u8]) -> Result<Message<'a>, Malformed> {
        let message = base::Message::from_slice(bytes).map_err(|_| Malformed::Short)?;
        if message.header_counts().qdcount() != 1 {
            return Err(Malformed::Questions);
        }
        let question = message
            .question()
            .next()
            .and_then(Result::ok)
            .ok_or(Malformed::Short)?;
        Ok(Message { message, question })
    }

    /// The id that an answer repeats.
    pub fn id(&self) -> u16 {
        self.message.header().id()
    }

    /// Whether it is a response (QR).
    pub fn is_response(&self) -> bool {
        self.message.header().qr()
    }

    /// Whether it asks, or answers, what a name of the Internet is: opcode QUERY,
    /// class IN.
    pub fn is_about_a_name(&self) -> bool {
        self.message.header().opcode() == Opcode::QUERY && self.question.qclass() == Class::IN
    }

    /// Feeds the question to a hash: its name, case folded, and its type.
    pub fn hash_question(&self, hasher: &mut impl Hasher) {
        hasher.write_u16(self.question.qtype().to_int());
        for label in self.question.qname().iter_labels() {
            // The length keeps `a.b` apart from one label with a dot in it.
            hasher.write_usize(label.len());
            for byte in label.iter() {
                hasher.write_u8(byte.to_ascii_lowercase());
            }
        }
    }

    /// What a response says of the question's name: the addresses at the end of
    /// its chain of CNAMEs, of the type that was asked for. `None` when it gives
    /// none: an error, no data, or another type.
    ///
    /// Records that the chain does not lead to are not looked at, nor are the
    /// other sections. Of a response that was truncated (TC) or whose packet was cut
    /// off (`!whole`), whatever can be read counts: the addresses in it are true.
    ///
    /// # Errors
    /// [`Malformed::Record`] and [`Malformed::Chain`].
    pub fn answer(&self, whole: bool) -> Result<Option<Answer>, Malformed> {
        let asked = self.question.qtype();
        let header = self.message.header();
        if header.rcode() != Rcode::NOERROR || !matches!(asked, Rtype::A | Rtype::AAAA | Rtype::ANY)
        {
            return Ok(None);
        }
        let records = self.records(whole && !header.tc())?;
        let mut names = vec![name(self.question.qname())];
        let mut last = *self.question.qname();
        let mut chain_ttl = u32::MAX;
        while let Some((target, ttl)) = records.iter().find_map(|record| match record.data {
            Data::Cname(target) if record.owner == last => Some((target, record.ttl)),
            _ => None,
        }) {
            if names.len() == CHAIN {
                return Err(Malformed::Chain);
            }
            names.push(name(&target));
            last = target;
            chain_ttl = chain_ttl.min(ttl);
        }
        let mut addresses = Vec::new();
        for record in &records {
            match record.data {
                Data::Address(ip) if record.owner == last => addresses.push(Resolution {
                    ip,
                    ttl: chain_ttl.min(record.ttl),
                }),
                _ => {}
            }
        }
        Ok((!addresses.is_empty()).then_some(Answer { names, addresses }))
    }

    /// The records of the answer section that may matter.
    fn records(&self, whole: bool) -> Result<Vec<Record<'a>>, Malformed> {
        let mut records = Vec::new();
        let Ok(section) = self.message.answer() else {
            return if whole {
                Err(Malformed::Record)
            } else {
                Ok(records)
            };
        };
        for record in section.take(RECORDS) {
            let record = record.ok().map(|record| self.record(&record));
            match record {
                Some(Ok(Some(record))) => records.push(record),
                Some(Ok(None)) => {}
                // What is behind it cannot be found.
                Some(Err(Malformed::Record)) | None if whole => return Err(Malformed::Record),
                Some(Err(_)) | None => break,
            }
        }
        Ok(records)
    }

    /// A record, where it is of class IN and of a type that matters.
    fn record(&self, record: &ParsedRecord<'a, [u8]>) -> Result<Option<Record<'a>>, Malformed> {
        if record.class() != Class::IN {
            return Ok(None);
        }
        let asked = self.question.qtype();
        let wanted = |rtype| asked == rtype || asked == Rtype::ANY;
        let data = match record.rtype() {
            Rtype::CNAME => record
                .to_record::<Cname<ParsedName<&'a [u8]>>>()
                .map(|cname| cname.map(|cname| Data::Cname(*cname.data().cname()))),
            Rtype::A if wanted(Rtype::A) => record
                .to_record::<A>()
                .map(|a| a.map(|a| Data::Address(a.data().addr().into()))),
            Rtype::AAAA if wanted(Rtype::AAAA) => record
                .to_record::<Aaaa>()
                .map(|aaaa| aaaa.map(|aaaa| Data::Address(aaaa.data().addr().into()))),
            _ => return Ok(None),
        };
        let data = data.map_err(|_| Malformed::Record)?;
        let ttl = record.ttl().as_secs();
        Ok(data.map(|data| Record {
            owner: record.owner(),
            ttl: if ttl > LONGEST_TTL { 0 } else { ttl },
            data,
        }))
    }
}

#[derive(Debug)]
struct Record<'a> {
    owner: ParsedName<&'a [u8]>,
    ttl: u32,
    data: Data<'a>,
}

#[derive(Debug)]
enum Data<'a> {
    Cname(ParsedName<&'a [u8]>),
    Address(IpAddr),
}

fn name(name: &ParsedName<&[u8]>) -> Name {
    Name::of_labels(
        name.iter_labels()
            .filter(|label| !label.is_root())
            .map(|label| label.as_slice()),
    )
}

#[cfg(test)]
mod tests;
